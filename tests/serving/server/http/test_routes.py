"""Routes and headers: what is found, by heart or not, is the same."""

from __future__ import annotations

import pytest

from serving.server.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError
from serving.server.http import Request, Response, Route
from serving.server.http.messages import Headers
from serving.server.http.routes import REMEMBERED, Routes


async def answer(_request: Request) -> Response:
    raise AssertionError("nobody asks")


READ = Route("GET", "/models/(?P<model>[^/]+)(/versions/(?P<version>[0-9]+))?", answer)
RUN = Route("POST", "/models/(?P<model>[^/]+)/run", answer)
READ_ALL = Route("GET", "/models/.*", answer)
ROUTES = Routes([READ, RUN, READ_ALL], cors=False)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("method", "url", "route", "variables"),
    [
        (b"GET", b"/models/a", READ, {"model": "a", "version": None}),
        (b"HEAD", b"/models/a/versions/2", READ, {"model": "a", "version": "2"}),
        (b"POST", b"/models/a/run", RUN, {"model": "a"}),
        (b"GET", b"/models/a/run", READ_ALL, {}),
        (b"POST", b"/other/%61%2Fb?x=1#y", None, {}),
        (b"POST", b"/models/%c3%a9/run?x=1", RUN, {"model": "\xe9"}),
        (b"POST", b"/models/a%2Fb%3Ac/run", RUN, {"model": "a/b:c"}),
        (b"POST", b"http://host/models/a/run", RUN, {"model": "a"}),
    ],
)
def test_the_first_route_that_fits(
    times: int, method: bytes, url: bytes, route: Route | None, variables: dict[str, str]
) -> None:
    for _ in range(times):
        target = ROUTES.target(method, url)
    if route is None:
        assert isinstance(target.found, NotFoundError)
    else:
        assert (target.found, target.variables, target.method) == (route, variables, method.decode())


def test_what_is_not_served() -> None:
    error = ROUTES.target(b"PUT", b"/models/a/run").found
    assert isinstance(error, MethodNotAllowedError)
    assert str(error) == "expected GET or POST /models/a/run, got PUT"
    assert error.headers == ((b"allow", b"GET, POST, HEAD"),)
    assert str(ROUTES.target(b"GET", b"/").found) == "nothing is served at /"
    for url in (b"a:1", b"/\xff", b"http://", b""):
        with pytest.raises(InvalidRequestError, match="expected a URL"):
            ROUTES.target(b"GET", url)


def test_no_client_can_make_the_routes_known_by_heart_grow() -> None:
    routes = Routes([RUN], cors=False)
    for number in range(3 * REMEMBERED):
        assert routes.target(b"POST", b"/models/%d/run" % number).variables == {"model": str(number)}
        routes.target(b"POST", b"/models/%d/" % number + b"a" * 1000)
    assert 0 < len(routes._known) <= REMEMBERED


def test_headers_are_read_by_their_names() -> None:
    headers = Headers({b"content-type": b"text/plain; x=\xe9", b"a": b""})
    assert headers["content-type"] == headers.get("content-type") == "text/plain; x=\xe9"
    assert (headers.get("a"), headers.get("b"), headers.get("b", "none")) == ("", None, "none")
    assert dict(headers) == {"content-type": "text/plain; x=\xe9", "a": ""}
    assert "b" not in headers
    with pytest.raises(KeyError):
        headers["b"]
