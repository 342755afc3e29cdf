"""A hundred wishes at once: real threads, on a database in a file, or on PostgreSQL (TEST_DATABASE_URL)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import close_old_connections, connection, connections
from rest_framework.test import APIClient

from costs import budgets
from costs.models import Alert, Budget, Delivery
from gpushopper.models import Consumer, make_key
from inventory import refresh
from providers import registry
from sessions.models import Session
from tests.fakes import FakeClock, FakeProvider, quote

pytestmark = pytest.mark.django_db(transaction=True)

WITHIN = 120.0
OFFERS = 100


@pytest.fixture
def shared(db: None, transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """A database that threads share as processes would: one in memory has no locks worth testing."""
    if connection.vendor != "sqlite":
        yield
        return
    before, settings_before = connections["default"], connections.settings["default"]
    connections.settings["default"] = {**before.settings_dict, "NAME": str(tmp_path / "shared.db")}
    connections["default"] = connections.create_connection("default")
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = settings_before
        connections["default"] = before


@pytest.fixture
def menu(shared: None, virtual: FakeClock) -> None:
    registry.use({"fake": FakeProvider(quotes=[quote(str(number)) for number in range(OFFERS)])})
    refresh.refresh("fake")


def key(name: str) -> str:
    consumer, _ = Consumer.objects.get_or_create(name=name)
    return make_key(consumer)[1]


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(0)` … `work(number - 1)`, begun together, each in a thread with its own connection."""
    start, results = threading.Barrier(number), [None] * number

    def run(index: int) -> None:
        try:
            start.wait(WITHIN)
            results[index] = work(index)
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    close_old_connections()
    return results


def client(text: str) -> APIClient:
    made = APIClient(HTTP_AUTHORIZATION=f"Bearer {text}")
    made.raise_request_exception = False
    return made


def test_a_hundred_creates_at_once_never_overcommit(menu: None) -> None:
    text = key("alice")
    budget = Budget(consumer="alice", period="monthly", limit=10 * 451_000 + 450_999, on_limit="block")
    budgets.write(budget, budget.created_at)

    def create(index: int) -> int:
        body = {"offer_id": f"fake-{index}", "reservation_hours": 1, "ssh_public_key": KEY}
        return client(text).post("/api/v1/sessions", body).status_code

    codes = at_once(OFFERS, create)
    assert sorted(codes) == [201] * 10 + [409] * 90, codes
    assert Session.objects.count() == 10
    room = budgets.stands(budget)
    assert (room.reserved, room.remaining) == (4_510_000, 450_999)


def test_extensions_at_once_never_overcommit(menu: None) -> None:
    text = key("alice")
    budget = Budget(consumer="alice", period="total", limit=15 * 451_000, on_limit="stop")
    budgets.write(budget, budget.created_at)
    for index in range(10):
        body = {"offer_id": f"fake-{index}", "reservation_hours": 1, "ssh_public_key": KEY}
        assert client(text).post("/api/v1/sessions", body).status_code == 201
    paths = [f"/api/v1/sessions/{pk}/extend" for pk in Session.objects.values_list("pk", flat=True)]

    codes = at_once(10, lambda index: client(text).post(paths[index], {"additional_hours": 1}).status_code)
    assert sorted(codes) == [200] * 5 + [409] * 5, codes
    assert budgets.stands(budget).remaining == 0


def test_watchers_at_once_tell_once(shared: None, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a claim keeps them apart or the alert's own row does."""
    monkeypatch.setattr(budgets.ledger, "spent", lambda *given: 6_000_000)
    budget = Budget(consumer="alice", period="daily", limit=10_000_000, on_limit="alert")
    budgets.write(budget, virtual.now())
    Budget.objects.update(due_at=virtual.now())
    at_once(8, lambda index: budgets.watch(virtual.now()))
    assert Alert.objects.count() == 1
    Alert.objects.all().delete()
    at_once(8, lambda index: budgets._alert(budget, virtual.now(), 5_000, 6_000_000, virtual.now()))
    assert Alert.objects.count() == 1
    assert not Delivery.objects.exists()


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm8VlVtCbe8Cj4ykSgW0Nzq3PYGtUvAgYqC0Cw3b2yJ me"


def test_one_key_sent_by_many_at_once_rents_once(menu: None) -> None:
    text = key("alice")
    body = {"gpu_type": "RTX 4090", "reservation_hours": 1}

    def create(index: int) -> tuple[int, Any]:
        answer = client(text).post("/api/v1/sessions", body, HTTP_IDEMPOTENCY_KEY="monday-1")
        return answer.status_code, answer.json()

    answers = at_once(12, create)
    assert answers == [answers[0]] * 12, "the same session, and the same private key"
    assert answers[0][0] == 201
    assert Session.objects.count() == 1
