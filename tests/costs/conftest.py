from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from costs import ledger
from providers.base import PriceParts
from sessions import outlets
from tests.costs.receiver import Receiver
from tests.sessions.conftest import engine, guests, no_messages, provider

__all__ = ["engine", "guests", "no_messages", "provider"]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A receiver on loopback, where webhooks may go in these tests."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    with Receiver() as running:
        yield running


@dataclass
class Stretch:
    """A stretch of time in which one instance costs one rate."""

    instance: Any
    rate: int
    start: datetime
    end: datetime | None = None

    def cost(self, since: datetime, until: datetime) -> int:
        start, end = max(self.start, since), min(self.end or until, until)
        return max(0, round(self.rate * (end - start).total_seconds() / 3600))


class Meter:
    """Counts what the outlet says, in the plainest way."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []

    def metered(self, row: Any, at: datetime, parts: PriceParts | None) -> None:
        for stretch in self.stretches:
            if stretch.instance.pk == row.pk and stretch.end is None:
                stretch.end = at
        if parts is not None:
            self.stretches.append(Stretch(row, parts.total, at))

    def costs_of(self, sessions: Sequence[UUID], now: datetime) -> dict[UUID, int]:
        ever = datetime(1970, 1, 1, tzinfo=UTC)
        return {pk: sum(s.cost(ever, now) for s in self.stretches if s.instance.session_id == pk) for pk in sessions}

    def spent(self, consumer: str, start: datetime, end: datetime, now: datetime) -> int:
        of = [s for s in self.stretches if s.instance.session and s.instance.session.consumer == consumer]
        return sum(s.cost(start, min(end, now)) for s in of)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """A ledger whose figures a reader can work out in the head."""
    plain = Meter()
    monkeypatch.setattr(ledger, "spent", plain.spent, raising=False)
    monkeypatch.setattr(outlets, "costs_of", plain.costs_of)
    monkeypatch.setattr(outlets, "metered", [plain.metered])
    return plain
