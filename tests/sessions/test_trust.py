"""Deadlines wait for a clock that the providers contradict, and not for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from rest_framework.test import APIClient

from gpushopper.models import Alarm
from providers import clock, registry
from providers.base import NotUnderstood, Unavailable
from sessions import engine as engines
from sessions import ssh
from sessions.models import Account, Instance, Session
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider
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

    def was_a_day_ahead(self, engine: Engine) -> None:
        """For five minutes, in which the service was at work; then it was set right, and restarted."""
        self.set(days=1)
        engine.run(300)
        self.set(days=-1)
        self.restart()


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


def test_a_machine_that_seems_idle_by_a_doubtful_clock_is_kept(
    alice: APIClient, engine: Engine, computer: Computer, guests: FakeGuests
) -> None:
    """It was idle since before the jump, for a minute or for an hour."""
    guests.gpus = "NVIDIA GeForce RTX 4090, 24564, 570.124.04, 0\n"
    session = running(alice, engine, reservation_hours=8, idle_threshold_minutes=30)
    engine.run(60)
    computer.set(hours=1)
    Instance.objects.update(idle_since=F("inspected_at"), inspected_at=computer.virtual.instant)
    engine.run(30)
    assert shown(alice, session)["status"] == "running"


def test_a_machine_that_boots_is_given_its_time_by_a_doubtful_clock(
    alice: APIClient, engine: Engine, computer: Computer, guests: FakeGuests
) -> None:
    guests.trouble = [ssh.Unreachable("not yet")] * 60
    session = order(alice, reservation_hours=8)
    engine.run(30)
    computer.set(hours=1)
    engine.run(20)
    assert shown(alice, session)["status"] == "provisioning"
    guests.trouble.clear()
    engine.run(60)
    assert shown(alice, session)["status"] == "running"


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
    computer.was_a_day_ahead(engine)
    engine.run(1600)
    assert shown(alice, session)["status"] == "stopped"
    assert teller.listed == {}


def test_a_machine_that_was_seen_in_the_future_can_be_missed_again(
    alice: APIClient, engine: Engine, computer: Computer, teller: Teller
) -> None:
    session = running(alice, engine, reservation_hours=8)
    computer.was_a_day_ahead(engine)
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
    for by, what in ((3600, "3600 s ahead of"), (-3600, "3600 s behind")):
        computer.set(seconds=by)
        engine.run(60)
        [alarm] = Alarm.objects.filter(name="clock_off", over_at=None)
        assert f"Our clock is {what} fake's." in alarm.text
        computer.set(seconds=-by)
        engine.run(60)
        assert not Alarm.objects.filter(name="clock_off", over_at=None).exists()
