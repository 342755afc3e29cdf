"""A provider with three offers, people who ask, and clients that check every answer against the schema."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from gpushopper.models import ApiKey, Consumer, make_key
from tests.api.conformance import CheckingClient
from tests.fakes import FakeClock
from tests.sessions.conftest import engine, guests, no_messages, provider

__all__ = ["engine", "guests", "no_messages", "provider"]

ClientFor = Callable[..., CheckingClient]


@pytest.fixture
def client_for(db: Any) -> ClientFor:
    def make(name: str, *, operator: bool = False, **said: Any) -> CheckingClient:
        consumer, _ = Consumer.objects.get_or_create(name=name)
        key, text = make_key(consumer, ApiKey.Role.OPERATOR if operator else ApiKey.Role.CONSUMER)
        ApiKey.objects.filter(pk=key.pk).update(**said)
        client = CheckingClient(HTTP_AUTHORIZATION=f"Bearer {text}")
        client.raise_request_exception = False
        return client

    return make


@pytest.fixture
def nobody(db: Any) -> CheckingClient:
    return CheckingClient()


@pytest.fixture
def people(virtual: FakeClock, client_for: ClientFor, nobody: CheckingClient) -> dict[str, CheckingClient]:
    """Everybody who may come to a door."""
    User.objects.create_user("boss", password="pw", is_staff=True, is_superuser=True)
    User.objects.create_user("visitor", password="pw")
    logged_in = {
        name: CheckingClient(enforce_csrf_checks=name != "visitor") for name in ("boss", "visitor", "boss_with_csrf")
    }
    for name, client in logged_in.items():
        client.login(username="visitor" if name == "visitor" else "boss", password="pw")
    token = "c" * 32
    logged_in["boss_with_csrf"].cookies["csrftoken"] = token
    logged_in["boss_with_csrf"].defaults["HTTP_X_CSRFTOKEN"] = token
    ended = virtual.now() - timedelta(seconds=1)
    return {
        "nobody": nobody,
        "bad key": CheckingClient(HTTP_AUTHORIZATION="Bearer gs_00000000_" + "x" * 43),
        "not a bearer": CheckingClient(HTTP_AUTHORIZATION="Basic YTpi"),
        "revoked": client_for("alice", revoked_at=ended),
        "expired": client_for("alice", expires_at=ended),
        "owner": client_for("alice"),
        "other": client_for("bob"),
        "operator": client_for("ops", operator=True),
        "visitor": logged_in["visitor"],
        "boss": logged_in["boss"],
        "boss with csrf": logged_in["boss_with_csrf"],
    }


@pytest.fixture(autouse=True)
def a_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been spent, as far as the budgets know."""
    monkeypatch.setattr("costs.ledger.spent", lambda *given: 0, raising=False)
