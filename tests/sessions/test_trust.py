"""Deadlines wait for a clock that the providers contradict, and not for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from providers import clock, registry
from providers.base import NotUnderstood, Unavailable
from sessions import engine as engines
from sessions import trust
from sessions.models import Account, Instance, Session
from tests.fakes import Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db


class Teller(FakeProvider):
    """Tells its time with each answer, as real ones do with `Date`: the true time, which our clock may miss."""

    def __init__(self, told: FakeClock, provider: FakeProvider) -> None:
        super().__init__("fake", provider.menu)
        self.clock, self.off = told, timedelta(0)
        self.mute = False

    def _asked(self, verb: str, what: object = None) -> None:
        super()._asked(verb, what)
        if not self.mute:
            clock.hear("fake", self.clock.instant - self.off)


@pytest.fixture
def teller(virtual: FakeClock, provider: FakeProvider) -> Teller:
    teller = Teller(virtual, provider)
    registry.use({"fake": teller})
    return teller


class Computer:
    """The one that our processes run on: its clock can be set, and they can be restarted."""

    def __init__(self, virtual: FakeClock, teller: Teller) -> None:
        self.virtual, self.teller = virtual, teller

    def set(self, **by: float) -> None:
        """Its clock, from now on; the monotonic one does not notice, nor do the providers."""
        span = timedelta(**by)
        self.virtual.instant += span
        self.virtual.jumped += span
        self.teller.off += span

    def restart(self) -> None:
        engines.forget()


@pytest.fixture
def computer(virtual: FakeClock, teller: Teller) -> Computer:
    return Computer(virtual, teller)


def running(alice: APIClient, engine: Engine, **wishes: object) -> dict[str, object]:
    session = order(alice, **wishes)
    engine.run(5)
    assert shown(alice, session)["status"] == "running"
    return session


# --- Ahead --------------------------------------------------------------------------------------------------


def test_a_session_does_not_expire_by_a_clock_that_is_an_hour_ahead(
    alice: APIClient, engine: Engine, computer: Computer
) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.set(hours=1)
    engine.run(60)
    assert shown(alice, session)["status"] == "running"
    computer.set(hours=-1)
    engine.run(60)
    assert shown(alice, session)["status"] == "running"
    engine.run(1800)
    assert shown(alice, session)["status_reason"] == "expired"


def test_after_ten_minutes_of_doubt_deadlines_are_kept_all_the_same(
    alice: APIClient, engine: Engine, computer: Computer
) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.set(hours=1)
    engine.run(9 * 60)
    assert shown(alice, session)["status"] == "running"
    engine.run(2 * 60)
    assert shown(alice, session)["status_reason"] == "expired"


def test_a_wish_to_end_does_not_wait_for_the_clock(alice: APIClient, engine: Engine, computer: Computer) -> None:
    session = running(alice, engine)
    computer.set(hours=1)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert shown(alice, session)["status"] == "stopped"


def test_no_time_out_ends_a_machine_by_a_doubtful_clock(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    """Neither one that boots, nor one that seems to have been idle since before the jump."""
    idle = running(alice, engine, reservation_hours=8, idle_threshold_minutes=30)
    Instance.objects.update(idle_since=computer.virtual.instant)
    computer.set(hours=1)
    engine.run(120)
    assert shown(alice, idle)["status"] == "running"


def test_nothing_is_created_by_a_clock_that_is_off(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    """Its deadline would be wrong, in its label and on its own switch."""
    engine.run(5)
    for by in (3600, -3600):
        computer.set(seconds=by)
        session = order(alice)
        engine.run(30)
        assert teller.count("create") == 0
        assert "clock is 3600 s off" in str(shown(alice, session)["status_reason"])
        computer.set(seconds=-by)
        alice.delete(f"/api/v1/sessions/{session['id']}")


# --- Processes that have just begun ---------------------------------------------------------------------------


def test_a_process_that_begins_with_a_wrong_clock_asks_before_it_ends_anything(
    alice: APIClient, engine: Engine, computer: Computer
) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.restart()
    computer.set(hours=1)
    row = Instance.objects.get(session_id=session["id"])
    Instance.objects.update(due_at=computer.virtual.instant)
    engines.step_instance(str(row.pk))  # What a worker does that only ends machines: it lists no account.
    assert shown(alice, session)["status"] == "running"
    computer.set(hours=-1)
    engine.run(1900)
    assert shown(alice, session)["status_reason"] == "expired"


def test_its_session_asks_too(alice: APIClient, engine: Engine, computer: Computer) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.restart()
    computer.set(hours=1)
    Session.objects.update(due_at=computer.virtual.instant)
    engines.step_session(str(session["id"]))
    assert shown(alice, session)["status"] == "running"


def test_while_a_provider_is_silent_nothing_falls_due_for_ten_minutes(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.restart()
    teller.trouble = {verb: [Unavailable("no answer")] * 1000 for verb in ("account", "machines", "machine")}
    computer.virtual.advance(1800)
    engine.run(9 * 60)
    assert shown(alice, session)["status"] == "running"
    assert teller.count("account") < 60  # It is asked now and then, not at each step.
    engine.run(2 * 60)
    assert shown(alice, session)["status_reason"] == "expired"


@pytest.mark.parametrize("trouble", [[], [NotUnderstood("what?")]])
def test_a_provider_that_tells_no_time_delays_nothing(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller, trouble: list[Exception]
) -> None:
    session = running(alice, engine, reservation_hours=0.5)
    computer.restart()
    teller.mute, teller.trouble = True, {"account": trouble}
    computer.virtual.advance(1800)
    row = Instance.objects.get(session_id=session["id"])
    engines.step_instance(str(row.pk))
    assert shown(alice, session)["status_reason"] == "expired"


# --- What was written by a wrong clock --------------------------------------------------------------------------


def test_what_a_clock_that_was_a_day_ahead_put_to_sleep_is_woken(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    """Else its account is not listed for a day, and its deadline passes meanwhile."""
    session = running(alice, engine, reservation_hours=0.5)
    computer.set(days=1)
    engine.run(300)
    computer.set(days=-1)
    computer.restart()
    engine.run(1600)
    assert shown(alice, session)["status"] == "stopped"
    assert teller.listed == {}


def test_a_machine_that_was_seen_in_the_future_can_be_missed_again(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    session = running(alice, engine, reservation_hours=8)
    computer.set(days=1)
    engine.run(60)
    computer.set(days=-1)
    computer.restart()
    teller.listed.clear()
    engine.run(900)
    assert shown(alice, session)["status_reason"] == "vanished"
    assert Account.objects.get().looked_at <= computer.virtual.instant


def test_a_clock_that_is_behind_takes_nothing_back(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    """What others saw is no future, only because our own clock is wrong."""
    running(alice, engine, reservation_hours=8)
    seen = Instance.objects.get().seen_at
    computer.restart()
    computer.set(days=-1)
    engine.run(60)
    assert Instance.objects.get().seen_at == seen


def test_an_alarm_says_so(alice: APIClient, engine: Engine, computer: Computer) -> None:
    engine.run(5)
    computer.set(hours=1)
    engine.run(60)
    assert trust.clocks_off() == {"fake": timedelta(hours=1)}
