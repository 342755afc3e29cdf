"""Fixtures for every test: a clock that is told, API clients, and no provider unless a test brings one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from gpushopper.models import ApiKey, Consumer, make_key
from providers import clock, registry
from tests import sabotage
from tests.fakes import FakeClock

sabotage.apply_from_environment()


@pytest.fixture
def virtual() -> Iterator[FakeClock]:
    """A clock that moves only when told."""
    told = FakeClock()
    before = clock.use(told)
    yield told
    clock.use(before)


@pytest.fixture(autouse=True)
def no_provider() -> Iterator[None]:
    before = registry.all()
    registry.use({})
    yield
    registry.use(before)


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
