"""HTTP for the REST fronts: from the bytes of a connection to a handler and back, within limits.

`server` accepts, `connection` reads requests and writes answers in their order, `app` finds a handler and asks it.
"""

from serving.server.http.app import App
from serving.server.http.messages import Handler, Request, Response, Route, parse_json

__all__ = ["App", "Handler", "Request", "Response", "Route", "parse_json"]
