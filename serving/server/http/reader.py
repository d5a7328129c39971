"""From the bytes of a connection to requests, within limits. https://www.rfc-editor.org/rfc/rfc9112"""

from __future__ import annotations

from collections import deque

import httptools

from serving.server.errors import HeadTooLargeError, InvalidRequestError, ServerError, UnimplementedError
from serving.server.http.app import App
from serving.server.http.incoming import Incoming

HEAD_BYTES = 65_536
HEADERS = 200
PIPELINED = 200
"""Requests of one connection that wait behind one that is being answered."""


class Reader:
    """Puts each request into `queue` when its head is whole."""

    def __init__(self, app: App, client: str, queue: deque[Incoming]) -> None:
        """`client` is the peer as logs name it."""
        self._app = app
        self._client = client
        self._queue = queue
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self.in_head = False
        """Whether a head has begun and is not whole."""
        self.body_of: Incoming | None = None
        """The request whose body is not whole, the last of the queue."""
        self.ended = False
        """Whether nothing more is read: the connection ends with the answer to the last request."""

    def feed(self, data: bytes) -> bool:
        """Read on; whether that ends amid another head or body than it began in.

        Raises `ServerError` where what comes cannot be read.
        """
        head, body_of = self._headers if self.in_head else None, self.body_of
        begins = not self._queue and not self.in_head and body_of is None
        if begins:
            again = self._app.known_heads.recall(data)
            if again is not None:
                self._queue.append(again)
                self.ended = not again.keep_alive
                return False
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if self.ended:
                return False  # Whatever follows the last request.
            cause = error.__context__
            if isinstance(cause, ServerError):
                raise cause from None
            raise InvalidRequestError(f"expected a request of HTTP/1.1: {error}") from None
        if not self.in_head:
            if begins and self.body_of is None and len(self._queue) == 1:
                self._app.known_heads.learn(data, self._queue[0])
            return self.body_of is not None and self.body_of is not body_of
        if self._headers is not head:
            self._head_bytes = 0
            return True
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            raise HeadTooLargeError(f"expected a head of at most {HEAD_BYTES} bytes")
        return False

    def refuse(self, error: ServerError) -> None:
        """Let the request that is being read, or what stands for it, be answered with an error; read no more."""
        self.ended = True
        self.in_head = False
        if self.body_of is None:
            self._queue.append(self._app.refuse(error))
        else:
            self.body_of.refuse(error)
            self.body_of = None

    def close(self) -> None:
        """Let go of the parser, which refers to this."""
        self.ended = True
        del self._parser

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We stay with HTTP/1.1, as RFC 9110 (7.8) allows; the parser has not read the body: read it anew.
            lines = [self._parser.get_method() + b" " + self._url + b" HTTP/1.1"]
            kept = [header for header in self._headers if header[0] not in (b"upgrade", b"connection")]
            lines += [b": ".join(header) for header in kept]
            self._parser = httptools.HttpRequestParser(self)
            self._parse(b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.in_head = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        headers = dict(self._headers)
        parser = self._parser
        method = parser.get_method()
        if method == b"CONNECT":
            raise InvalidRequestError("expected a request for this server, got CONNECT")
        if b"upgrade" in headers and parser.should_upgrade():
            return
        self.in_head = False
        if self.ended:
            return
        if b"transfer-encoding" in headers:
            codings = [value for name, value in self._headers if name == b"transfer-encoding"]
            if len(codings) > 1 or codings[0].lower() != b"chunked":
                raise UnimplementedError("expected chunked as the only Transfer-Encoding")
        size = len(self._url) + sum(map(len, headers)) + sum(map(len, headers.values()))
        if len(self._headers) > HEADERS or size > HEAD_BYTES:
            raise HeadTooLargeError(f"expected at most {HEADERS} headers of {HEAD_BYTES} bytes, got more")
        if len(self._queue) > PIPELINED:
            raise InvalidRequestError(f"expected at most {PIPELINED} requests to wait on one connection")
        # A client of HTTP/1.0 would have to be told that its connection is kept: it is not.
        keep_alive = parser.should_keep_alive() and (
            b"connection" not in headers or parser.get_http_version() != "1.0"
        )
        incoming = self._app.admit(method, self._url, headers, self._client, keep_alive=keep_alive)
        self._queue.append(incoming)
        if incoming.whole:
            self.ended = True
        else:
            self.body_of = incoming

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self.body_of is not None:
            self.body_of.add(body)

    def on_message_complete(self) -> None:
        """The body is whole; that of a request that asks for an upgrade comes later."""
        if self.body_of is not None:
            self.body_of.whole = True
            self.ended = not self.body_of.keep_alive
            self.body_of = None
