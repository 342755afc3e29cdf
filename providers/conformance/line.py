"""The line between an adapter and its service: it notes what is sent, and breaks when it is told to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter

from providers import clock
from providers.sandbox.transport import Service, WorldAdapter
from providers.sandbox.wire import Request, Response, html

Go = Callable[[], Response]  # the service does what was asked, and answers
ELSEWHERE = "elsewhere.invalid"


@dataclass(frozen=True)
class Fault:
    """One way in which a call fails. `done`: the service has done what was asked all the same."""

    name: str
    happens: Callable[[Request, Go], Response]
    done: bool = False
    stream: Callable[[], Stream] | None = None  # the body, instead of the answer's own


@dataclass(frozen=True)
class Sent:
    """How a request went out; not what it said."""

    host: str
    timeout: Any
    verify: Any
    proxies: Any


@dataclass
class _Broken:
    fault: Fault
    numbers: range  # which requests, from the breaking on
    seen: int = 0


class Line(BaseAdapter):
    """Carries the requests of a session to `service`, with no socket."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.streams: list[Stream] = []
        self._broken: _Broken | None = None
        self._fault: Fault | None = None  # for the request that is under way
        self._carrier = WorldAdapter(service, self._around)

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("https://", self)
        session.mount("http://", self)
        return session

    @contextmanager
    def broken(self, fault: Fault, *, only: int | None = None, first: int = 0) -> Iterator[None]:
        """Every request from `first` on fails, or the one numbered `only`, counted from 0."""
        numbers = range(first, 10**6) if only is None else range(only, only + 1)
        self._broken = _Broken(fault, numbers)
        try:
            yield
        finally:
            self._broken = None

    def send(self, request: requests.PreparedRequest, *args: Any, **how: Any) -> requests.Response:
        host = urlsplit(str(request.url)).hostname or ""
        self.sent.append(Sent(host, how.get("timeout"), how.get("verify"), how.get("proxies")))
        self._fault = self._next_fault()
        try:
            response = self._carrier.send(request, *args, **how)
        except requests.RequestException as error:
            # As the real ones do, it names the URL.
            raise type(error)(f"Max retries exceeded with url: {request.url}", request=request) from error
        if self._fault and self._fault.stream:
            self.streams.append(self._fault.stream())
            body: Any = io.BufferedReader(self.streams[-1])
            response.raw = urllib3.HTTPResponse(body, status=response.status_code, preload_content=False)
        return response

    def close(self) -> None:
        """Nothing is open."""

    def _next_fault(self) -> Fault | None:
        broken = self._broken
        if broken is None:
            return None
        broken.seen += 1
        return broken.fault if broken.seen - 1 in broken.numbers else None

    def _around(self, request: Request, go: Go) -> Response:
        return self._fault.happens(request, go) if self._fault else go()


# --- Bodies that do not end ------------------------------------------------------------------------------


@dataclass(eq=False)
class Stream(io.RawIOBase):
    """A body of `size` bytes, all blanks; at most `piece` of them at a time, each time after some seconds."""

    size: int
    piece: int
    seconds: float = 0.0
    given: int = field(default=0, init=False)  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some = min(self.piece, len(buffer), self.size - self.given)
        if some:
            clock.sleep(self.seconds)
            buffer[:some] = b" " * some
            self.given += some
        return some


# --- What can happen to any call -------------------------------------------------------------------------


def _lost(request: Request, go: Go) -> Response:
    raise ConnectionError


def _silent(request: Request, go: Go) -> Response:
    clock.sleep(30)
    raise TimeoutError


def _lost_after(request: Request, go: Go) -> Response:
    go()
    raise ConnectionError


def _page(status: int) -> Response:
    return html(status, f"<html><head><title>{status}</title></head><body>nginx</body></html>")


def _gateway(status: int) -> Fault:
    return Fault(f"a gateway says {status}", lambda request, go: _page(status))


def _redirect(status: int) -> Callable[[Request, Go], Response]:
    return lambda request, go: Response(status, {"Location": f"https://{ELSEWHERE}{request.path}"}, b"")


def _but(change: Callable[[Response], Response]) -> Callable[[Request, Go], Response]:
    return lambda request, go: change(go())


def _half(answer: Response) -> Response:
    return Response(answer.status, answer.headers, answer.body[: len(answer.body) // 2])


NOTHING_DONE = (
    Fault("the connection breaks", _lost),
    Fault("no answer comes", _silent),
    *map(_gateway, (200, 404, 410, 500, 502, 503, 504)),
    Fault("a redirect, 302", _redirect(302)),
    Fault("a redirect, 307", _redirect(307)),
)
DONE_UNHEARD = (
    Fault("the answer is lost", _lost_after, done=True),
    Fault("500 after it was done", _but(lambda answer: _page(500)), done=True),
    Fault("an empty answer", _but(lambda answer: Response(200, answer.headers)), done=True),
    Fault("half an answer", _but(_half), done=True),
    Fault("an answer that drips", _but(lambda answer: answer), True, lambda: Stream(600, piece=1, seconds=10)),
)
ENDLESS = Fault("an answer without end", _but(lambda answer: answer), True, lambda: Stream(2**27, piece=2**16))
TOO_MANY = Fault("429", lambda request, go: Response(429, {"Retry-After": "7"}, b"Too many requests"))


def echo(status: int) -> Fault:
    """A service that repeats what it was asked, in the way that careless ones do."""

    def happens(request: Request, go: Go) -> Response:
        said = f"{status} for {request.path} {request.query} with {request.headers}"
        return Response(status, {"Content-Type": "application/json"}, json.dumps({"error": said}).encode())

    return Fault(f"{status} and an echo", happens)


# --- Answers that are almost right -----------------------------------------------------------------------

# Of other types than what they stand for. An empty list is not among them: that is something services do say.
_JUNK: tuple[Any, ...] = (None, True, "", {}, {"x": 1})


def twists(answer: Response) -> Iterator[tuple[str, Response]]:
    """The same answer with one thing wrong: a member is missing, or has another type. Each with what was done."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return  # no JSON, so there are no members
    for what, wrong in _twisted(body, depth=3):
        yield what, Response(answer.status, answer.headers, json.dumps(wrong).encode())


def _twisted(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    for junk in _JUNK:
        if type(junk) is not type(value):
            yield json.dumps(junk), junk
    if isinstance(value, dict) and depth:
        for name, member in value.items():
            yield f"no {name}", {key: each for key, each in value.items() if key != name}
            for what, wrong in _twisted(member, depth - 1):
                yield f"{name}: {what}", {**value, name: wrong}
    if isinstance(value, list) and value and depth:
        for what, wrong in _twisted(value[0], depth - 1):
            yield f"[0] {what}", [wrong, *value[1:]]


def saying(answer: Response) -> Fault:
    """The service does what it was asked, and this is heard of it."""
    return Fault("another answer", _but(lambda right: answer), done=True)


def instead(answer: Response) -> Fault:
    """The service is not asked at all, and this is heard."""
    return Fault("an answer that was not asked for", lambda request, go: answer)


def heard(answers: list[Response]) -> Fault:
    """Nothing fails; what the service answers is put into `answers`."""

    def happens(request: Request, go: Go) -> Response:
        answers.append(go())
        return answers[-1]

    return Fault("nothing", happens, done=True)
