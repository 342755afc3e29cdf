"""What clients do in a run, and what they may expect: a story is a generator that asks for one thing at a time.

It lives outside of the service, so it survives the service's deaths, and does what a good client does: it asks
again after a lost answer, with the same `Idempotency-Key`, and never believes more than it was told.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.run import Run


@dataclass(frozen=True)
class Ask:
    method: str
    path: str
    body: Any = None
    consumer: str = "alice"
    key: str = ""
    may_be_refused: bool = False


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Until:
    """Wait until the session has one of the statuses; at most so many seconds."""

    session: str
    statuses: tuple[str, ...]
    at_most: float = 3600
    consumer: str = "alice"


@dataclass(frozen=True)
class Do:
    """Something that is no client's: the weather, a stop of the service, a restored backup."""

    what: Callable[[Run], None]


Step = Ask | Sleep | Until | Do
Story = Generator[Step, Any, None]

OVER = ("stopped", "failed")


@dataclass
class Promise:
    """What a client was promised and has wished; the judge holds the service to it."""

    session: str
    hours: float
    ended_at: datetime | None = None  # an end was asked for, and the request was sent
    seen: list[str] = field(default_factory=list)


def rent(
    *, hours: float = 0.1, consumer: str = "alice", wait: bool = True, name: str = "one", **wishes: Any
) -> Generator[Step, Any, str]:
    """Rent a machine; the session's id, or "" if the service refused it."""
    body = {"reservation_hours": hours, **wishes}
    if "offer_id" not in body and "gpu_type" not in body:
        body |= {"gpu_type": "RTX 4090", "provider": "vastai"}
    status, answer = yield Ask("POST", "/api/v1/sessions", body, consumer, key=f"rent-{name}")
    if status != 201:
        return ""
    session = str(answer["session"]["id"])
    if wait:
        yield Until(session, ("running", *OVER), consumer=consumer)
    return session


def end(session: str, *, how: str = "done", consumer: str = "alice", wait: bool = True) -> Generator[Step, Any, None]:
    if not session:
        return
    path = f"/api/v1/sessions/{session}"
    yield Ask("DELETE", path, None, consumer) if how == "delete" else Ask("POST", f"{path}/done", None, consumer)
    if wait:
        yield Until(session, OVER, at_most=4 * 3600, consumer=consumer)


def minutes(number: float) -> Sleep:
    return Sleep(number * 60)


HOUR = timedelta(hours=1)
