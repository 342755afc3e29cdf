"""Deadlines wait for a clock that the providers contradict, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rest_framework.test import APIClient

from providers import http
from sessions import trust
from tests.fakes import Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clocks() -> Iterator[dict[str, float]]:
    before = dict(http.clock_ahead)
    http.clock_ahead.clear()
    yield http.clock_ahead
    http.clock_ahead.clear()
    http.clock_ahead.update(before)
    trust._doubted_from = None


def test_a_session_does_not_expire_by_a_clock_that_is_an_hour_ahead(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider, clocks: dict[str, float]
) -> None:
    session = order(alice, reservation_hours=0.5)
    engine.run(5)
    clocks["fake"] = 3600.0
    virtual.advance(1800)
    engine.run(60)
    assert shown(alice, session)["status"] == "running"
    clocks["fake"] = 0.0  # It was set right again.
    engine.run(30)
    assert shown(alice, session)["status_reason"] == "expired"


def test_after_ten_minutes_of_doubt_deadlines_are_kept_all_the_same(
    alice: APIClient, engine: Engine, virtual: FakeClock, clocks: dict[str, float]
) -> None:
    session = order(alice, reservation_hours=0.5)
    engine.run(5)
    clocks["fake"] = 3600.0
    virtual.advance(1800)
    engine.run(11 * 60)
    assert shown(alice, session)["status_reason"] == "expired"


def test_a_wish_to_end_does_not_wait_for_the_clock(
    alice: APIClient, engine: Engine, provider: FakeProvider, clocks: dict[str, float]
) -> None:
    session = order(alice)
    engine.run(5)
    clocks["fake"] = 3600.0
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert shown(alice, session)["status"] == "stopped"
