"""The world as a `requests` transport: real URLs, bodies and statuses, and no socket."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter

from providers.sandbox.wire import Request, Response

# The real addresses, and the path under which the world knows each provider.
PREFIXES = {"console.vast.ai": "/vastai", "dashboard.tensordock.com": "/tensordock"}


class Service(Protocol):
    """A world, or anything else that answers requests."""

    def handle(self, request: Request) -> Response:
        """Raises ConnectionError and TimeoutError where no answer comes."""


# Around each call: may do something before it is sent, and after it had its effect but before its answer is seen.
Around = Callable[[Request, Callable[[], Response]], Response]


def session_for(world: Service, *, around: Around | None = None) -> requests.Session:
    """A session whose every request goes to `world.handle`, whatever its scheme."""
    session = requests.Session()
    adapter = WorldAdapter(world, around)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class WorldAdapter(BaseAdapter):
    def __init__(self, world: Service, around: Around | None = None) -> None:
        super().__init__()
        self.world, self.around = world, around

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Raises requests.ConnectionError and requests.ReadTimeout, as the wire would."""
        asked = _asked(request)
        try:
            answer = self.around(asked, lambda: self.world.handle(asked)) if self.around else self.world.handle(asked)
        except ConnectionError as error:
            raise requests.ConnectionError(request=request) from error
        except TimeoutError as error:
            raise requests.ReadTimeout(request=request) from error
        return _answered(request, answer)

    def close(self) -> None:
        """Nothing is open."""


def _asked(request: requests.PreparedRequest) -> Request:
    url = urlsplit(str(request.url))
    body = request.body or b""
    return Request(
        method=str(request.method),
        path=PREFIXES.get(url.hostname or "", "") + url.path,
        query=parse_qs(url.query, keep_blank_values=True),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body.encode() if isinstance(body, str) else body,
    )


def _answered(request: requests.PreparedRequest, answer: Response) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.headers.update(answer.headers)
    response.request = request
    response.url = str(request.url)
    response.raw = urllib3.HTTPResponse(
        io.BytesIO(answer.body), headers=dict(answer.headers), status=answer.status, preload_content=False
    )
    return response
