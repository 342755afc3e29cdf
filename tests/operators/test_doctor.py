"""`manage.py doctor` finds what is wrong and says what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests

from gpushopper import signals
from gpushopper.management.commands import doctor
from providers import clock, http, registry
from providers.base import Unauthorized, Unavailable
from sessions.lifecycle import State
from sessions.models import Account, Heartbeat, Instance
from tests.fakes import NOON, FakeClock, FakeProvider
from tests.operators.commands import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def well(virtual: FakeClock, provider: FakeProvider, alice: Any, settings: Any) -> FakeProvider:
    """A service in which nothing is wrong."""
    settings.SETTING_PROBLEMS, settings.PROVIDER_ENV, settings.SANDBOX = {}, {}, False
    for name in ("beat", "guardian"):
        Heartbeat.objects.create(name=name, at=NOON)
    Account.objects.create(provider="fake", looked_at=NOON)
    told = provider.account

    def account() -> Any:
        clock.hear("fake", clock.now() - timedelta(seconds=1.2))
        return told()

    provider.account = account  # type: ignore[method-assign]
    return provider


def test_a_healthy_service_passes(well: FakeProvider) -> None:
    ran = run("doctor")
    assert ran.code == 0, ran
    assert "FAIL" not in ran.out
    assert "warn" not in ran.out
    assert "heartbeat of beat and workers, now" in ran.out
    assert "fake: answers and takes our key, account acc1, balance 50.00 USD" in ran.out
    assert "clock, within 30 s of fake's" in ran.out
    assert "1 live API key\n" in ran.out


def test_it_changes_nothing(well: FakeProvider, django_assert_num_queries: Any) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        run("doctor")
    written = [q["sql"] for q in queries if q["sql"].split()[0] in ("INSERT", "UPDATE", "DELETE")]
    assert written == []
    assert {verb for verb, _ in well.asked} <= {"account", "quotes"}


@pytest.mark.parametrize(
    ("break_it", "says", "advises"),
    [
        (lambda: Heartbeat.objects.filter(name="beat").delete(), "beat and workers: no tick yet", "Start the service"),
        (lambda: Heartbeat.objects.filter(name="guardian").update(at=NOON - timedelta(hours=1)),
         "guardian: last round 60 min ago", "start its container"),
        (lambda: Account.objects.update(looked_at=NOON - timedelta(hours=1), error="no answer"),
         "last complete listing 60 min ago no answer", "manage.py reconcile"),
        (lambda: Account.objects.update(brake="amnesia"), "fake: amnesia.", "release the brake"),
        (lambda: Instance.objects.create(provider="fake", tag="x", machine_id="7", state=State.RUNNING,
                                         deadline=NOON - timedelta(minutes=20), hard_deadline=NOON),
         "Machine 7 at fake outlives its deadline by 20 min", "start the workers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_to_do(well: FakeProvider, break_it: Any, says: str, advises: str) -> None:
    break_it()
    ran = run("doctor")
    assert ran.code == 1
    assert "1 thing needs attention." in ran.err
    [line] = [line for line in ran.out.splitlines() if line.startswith("FAIL")]
    assert says in line
    assert advises in ran.out


@pytest.mark.parametrize(
    ("trouble", "says"),
    [(Unauthorized("401"), "the key is rejected (401)"), (Unavailable("timed out"), "no usable answer (timed out)")],
)
def test_a_provider_that_does_not_take_us_is_named(
    virtual: FakeClock, provider: FakeProvider, trouble: Exception, says: str
) -> None:
    provider.trouble["account"] = [trouble]
    ran = run("doctor")
    assert ran.code == 1
    assert f"fake: {says}" in ran.out


@pytest.mark.parametrize(("ahead", "says"), [(75.0, "75 s ahead of fake's"), (-75.0, "75 s behind fake's")])
def test_a_wrong_clock_is_found(well: FakeProvider, ahead: float, says: str) -> None:
    def account() -> Any:
        clock.hear("fake", clock.now() - timedelta(seconds=ahead))
        return FakeProvider().account()

    well.account = account  # type: ignore[method-assign]
    ran = run("doctor")
    assert ran.code == 1
    assert f"clock: {says}" in ran.out
    assert "keep it by NTP" in ran.out


def test_a_provider_that_tells_no_time_is_a_warning_only(well: FakeProvider) -> None:
    well.account = FakeProvider().account  # type: ignore[method-assign]
    clock.hear("fake", clock.now())  # of an earlier answer: it says nothing about now
    ran = run("doctor")
    assert ran.code == 0
    assert "fake told no time to compare it with" in ran.out


def test_the_clock_is_read_from_the_providers_own_answers(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the `Date` of an answer, whatever the answer is."""
    import responses

    with responses.RequestsMock() as wire:
        wire.get("https://provider.test/me", status=500, headers={"Date": "Thu, 29 Jan 2026 11:58:45 GMT"})
        client = http.Client("fake", "https://provider.test", "key", session=requests.Session())
        with pytest.raises(Unavailable):
            client.read(http.Call(operation="account", method="GET", path="/me"), attempts=1)
    assert clock.ahead_of("fake") == timedelta(seconds=75)
    [(verdict, what, _)] = list(doctor._clock("fake"))
    assert verdict == doctor.ILL
    assert "75 s ahead" in what


def test_without_a_database_the_providers_are_still_asked(
    virtual: FakeClock, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "database", lambda: "does not answer (OperationalError); check DATABASE_URL")
    ran = run("doctor")
    assert ran.code == 1
    assert "does not answer (OperationalError)" in ran.out
    assert "fake: answers and takes our key" in ran.out
    assert "heartbeat" not in ran.out


def test_a_broker_that_is_away_is_named(well: FakeProvider, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(signals, "broker", lambda: "does not answer (OperationalError)")
    settings.EMBEDDED = False
    ran = run("doctor")
    assert ran.code == 1
    assert "broker: does not answer" in ran.out
    assert "CELERY_BROKER_URL" in ran.out


def test_a_newcomer_is_told_how_to_go_on(virtual: FakeClock, db: None, settings: Any) -> None:
    registry.use({})
    settings.SANDBOX = True
    ran = run("doctor")
    assert "no API key yet" in ran.out
    assert "create_consumer NAME" in ran.out
    assert "the sandbox is used, and lives in `make run`" in ran.out


def test_bad_settings_and_keys_are_named_and_never_shown(well: FakeProvider, settings: Any) -> None:
    settings.SETTING_PROBLEMS = {"HARD_MAX_HOURS": "write a number of hours"}
    settings.PROVIDER_ENV = {"VASTAI_API_KEY": "CANARY key with blanks"}
    ran = run("doctor")
    assert ran.code == 1
    assert "setting HARD_MAX_HOURS: write a number of hours" in ran.out
    assert "provider vastai:" in ran.out
    assert "CANARY" not in ran.out + ran.err
