"""What goes over the wire between a caller and the world, and what each stand-in has to be able to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from providers.sandbox.books import Machine, Rate


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is without the query; header names are in lower case."""

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def first(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ").strip()


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def reply(status: int, value: Any, **headers: str) -> Response:
    """JSON."""
    return Response(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())


def plain(status: int, text: str) -> Response:
    return Response(status, {"Content-Type": "text/plain"}, text.encode())


def html(status: int, text: str) -> Response:
    return Response(status, {"Content-Type": "text/html"}, text.encode())


class Door(Protocol):
    """One provider's interface over the world."""

    name: str

    def operation(self, request: Request) -> str: ...
    def route(self, request: Request) -> str:
        """The path without ids."""

    def machine_of(self, request: Request) -> str:
        """The machine that the path names; "" if none."""

    def label_of(self, request: Request) -> str: ...
    def least_seconds(self, request: Request) -> float: ...
    def answer(self, request: Request) -> Response: ...
    def server_error(self, value: Any) -> Response: ...
    def unauthorized(self, value: Any) -> Response: ...
    def limited(self, value: Any) -> Response: ...
    def rate_stopped(self, rate: Rate) -> Rate: ...
    def freed(self, machine: Machine) -> None:
        """The machine has ended; what it took is on offer again."""

    def plant(self, label: str, account: str) -> Machine: ...
