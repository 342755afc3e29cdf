"""A consumer's wish and a step of the service meet on one session: on PostgreSQL each waits for the other, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from providers import clock
from sessions import controller
from sessions.lifecycle import Reason
from sessions.models import Instance, Session
from tests.fakes import Engine
from tests.sessions.test_life import order

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_time]


def together(*works: Callable[[], Any]) -> list[Exception]:
    troubles: list[Exception] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:
            troubles.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return troubles


def slowly(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Between two of its writes others get their turn."""
    plain = getattr(controller, name)

    def late(*args: Any) -> Any:
        time.sleep(0.3)
        return plain(*args)

    monkeypatch.setattr(controller, name, late)


@pytest.mark.parametrize("wish", ["the end", "an extension"])
def test_a_wish_and_a_step_never_wait_for_each_other(
    alice: APIClient, engine: Engine, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    order(alice, reservation_hours=2)
    engine.run(5)
    row, session, now = Instance.objects.get(), Session.objects.get(), clock.now()
    for name in ("_nudge", "end_instances", "_extend_rows"):
        slowly(monkeypatch, name)

    def wished() -> Any:
        if wish == "the end":
            return controller.wish_end(session.pk, Reason.DELETED, now)
        return controller.extend(session.pk, timedelta(hours=1), now)

    assert together(lambda: controller.end(row, Reason.DIED, now), wished) == []
