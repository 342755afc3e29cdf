"""Fixtures for every test: a clock that is told, API clients, and no provider unless a test brings one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from gpushopper.models import ApiKey, Consumer, make_key
from providers import clock, registry
from sessions import reconcile, trust
from tests import sabotage
from tests.fakes import FakeClock

sabotage.apply_from_environment()


# What takes minutes, the longest first.
LONGEST = (
    "test_a_death_at_any_boundary", "test_whatever_is_killed", "test_all_weathers", "test_long_lives",
    "test_the_suite_of_what_the_database_decides", "test_the_whole_tour", "test_a_worker_that_wakes_up",
    "test_every_life_is_lived_well",
)  # fmt: skip


def _rank(item: pytest.Item) -> int | None:
    return next((rank for rank, name in enumerate(LONGEST) if item.name.startswith(name)), None)


@pytest.hookimpl(trylast=True)  # after those that were not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begun first, the longest tests leave no worker without work at the end.

    Workers take a second test while they do their first, which should not be a long one that another could do.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ranked = [(_rank(item), item) for item in items]
    long = [item for rank in range(len(LONGEST)) for of, item in ranked if of == rank]
    short = [item for of, item in ranked if of is None]
    items[:] = long[:workers] + short[:workers] + long[workers:] + short[workers:]


@pytest.fixture
def virtual() -> Iterator[FakeClock]:
    """A clock that moves only when told."""
    told = FakeClock()
    before = clock.use(told)
    yield told
    clock.use(before)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight is listed each 15 s rather than each 2 s, where a test waits for minutes for something else."""
    monkeypatch.setattr(reconcile, "FAST", timedelta(seconds=15))


@pytest.fixture(autouse=True)
def no_provider() -> Iterator[None]:
    before = registry.all()
    registry.use({})
    yield
    registry.use(before)
    trust.forget()


ClientFor = Callable[..., APIClient]


@pytest.fixture
def client_for(db: Any) -> ClientFor:
    """An API client with a fresh key: `client_for("alice")`, `client_for("root", operator=True)`."""

    def make(name: str, *, operator: bool = False) -> APIClient:
        consumer, _ = Consumer.objects.get_or_create(name=name)
        _, text = make_key(consumer, ApiKey.Role.OPERATOR if operator else ApiKey.Role.CONSUMER)
        client = APIClient(HTTP_AUTHORIZATION=f"Bearer {text}")
        client.raise_request_exception = False
        return client

    return make


@pytest.fixture
def alice(client_for: ClientFor) -> APIClient:
    return client_for("alice")


@pytest.fixture
def operator(client_for: ClientFor) -> APIClient:
    return client_for("ops", operator=True)
