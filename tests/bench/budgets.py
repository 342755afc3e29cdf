"""One hundred creates at once under a hard budget that has room for half of them."""

from __future__ import annotations

import threading
import time

from django.db import connection
from rest_framework.test import APIClient

from costs import budgets
from costs.models import Budget
from gpushopper.models import Consumer, make_key
from inventory import refresh
from providers import clock, registry
from sessions import wake
from sessions.models import Session
from tests.bench.figure import Figure
from tests.fakes import FakeProvider, quote

CREATES = 100
AN_HOUR = 451_000  # micro-dollars: what one of these reserves


def run() -> list[Figure]:
    wake.publish = lambda task, argument, queue: None  # no broker here: what is measured is the reservation
    registry.use({"fake": FakeProvider(quotes=[quote(str(number)) for number in range(CREATES)])})
    refresh.refresh("fake")
    consumer = Consumer.objects.create(name="bench")
    now = clock.now()
    room_for = CREATES // 2
    budgets.write(Budget(consumer="bench", period="total", limit=room_for * AN_HOUR, on_limit="block", due_at=now), now)
    seconds = _at_once(make_key(consumer)[1])
    taken = Session.objects.count()
    assert taken == room_for, taken
    note = f"with their key pairs; {taken} were taken, which is what fits, and the others refused"
    return [Figure("budgeted_creates_100_parallel_seconds", seconds, "s", 10, note)]


def _at_once(key: str) -> float:
    start = threading.Barrier(CREATES + 1)

    def create(number: int) -> None:
        client = APIClient(HTTP_AUTHORIZATION=f"Bearer {key}", HTTP_HOST="localhost")
        start.wait()
        client.post("/api/v1/sessions", {"offer_id": f"fake-{number}", "reservation_hours": 1})
        connection.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(CREATES)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began
