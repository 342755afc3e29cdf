from __future__ import annotations

from collections.abc import Iterator

import pytest

from inventory import refresh
from providers import registry
from sessions import ssh, wake
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider, quote


@pytest.fixture
def provider(virtual: FakeClock, db: None) -> FakeProvider:
    """A provider with three offers, the cheapest first, whose account was seen completely."""
    fake = FakeProvider(quotes=[quote("1"), quote("2"), quote("3")], takes_env=True, takes_onstart=True)
    registry.use({"fake": fake})
    refresh.refresh("fake")
    return fake


@pytest.fixture
def guests() -> Iterator[FakeGuests]:
    fake = FakeGuests()
    before = ssh.use(fake)
    yield fake
    ssh.use(before)


@pytest.fixture(autouse=True)
def no_messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What would have been published. The engine of these tests finds what is due by itself."""
    sent: list[tuple[str, object]] = []
    monkeypatch.setattr(wake, "publish", lambda task, argument, queue: sent.append((task, argument)))
    return sent


@pytest.fixture
def engine(virtual: FakeClock, provider: FakeProvider, guests: FakeGuests) -> Engine:
    return Engine(virtual)
