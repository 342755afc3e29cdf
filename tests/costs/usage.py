"""Machines and what they used, as rows, for tests that need no life around them."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from costs import ledger
from providers import clock
from providers.base import PriceParts
from sessions.lifecycle import Status
from sessions.models import Instance, Session
from tests.fakes import NOON, FakeClock

_numbers = count(1)
UNKNOWN = UUID(int=0)
RATE = PriceParts(gpu=360_000, storage=36_000)  # 100 and 10 micro-dollars a second


def session(consumer: str = "alice", **said: Any) -> Session:
    plain: dict[str, Any] = {
        "provider": "fake", "offer_id": f"fake-{next(_numbers)}", "gpu_type": "RTX 4090", "gpu_count": 1,
        "vram_gb": 24, "price": RATE.total, "disk_gb": 50, "reservation": timedelta(hours=1),
        "ssh_public_key": "ssh-ed25519 AAAA", "status": Status.STOPPED, "created_at": NOON,
    }  # fmt: skip
    return Session.objects.create(consumer=consumer, **{**plain, **said})


def machine(of: Session | None = None, **said: Any) -> Instance:
    number = next(_numbers)
    plain: dict[str, Any] = {
        "provider": "fake", "tag": f"tag-{number}", "machine_id": f"m{number}", "deadline": NOON,
        "hard_deadline": NOON, "gpu_type": of.gpu_type if of else "",
    }  # fmt: skip
    return Instance.objects.create(session=of, **{**plain, **said})


def used(
    start: datetime, end: datetime | None, *, parts: PriceParts = RATE, consumer: str = "alice", **said: Any
) -> Instance:
    """A machine that cost `parts` from `start` to `end` (None: it still does), as it was written down then.

    It is of a session of `consumer`, or of nobody ("").
    """
    row = machine(session(consumer, **said) if consumer else None, provider=said.get("provider", "fake"))
    ledger.record(row, start, parts)
    if end is not None:
        before = clock.use(FakeClock(end))
        ledger.record(row, end, None)
        clock.use(before)
    return row
