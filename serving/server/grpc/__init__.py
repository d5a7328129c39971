"""gRPC on the event loop: connections of HTTP/2 (by nghttp2), the calls on them, and the server that holds them."""
