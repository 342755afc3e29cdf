"""The auditor finds whatever is late, blind or wrong, and writes nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from rest_framework.test import APIClient

from gpushopper import auditor, signals
from providers import http, registry, tag
from providers.base import Machine, Unauthorized, Unavailable
from sessions.lifecycle import State
from sessions.models import Account, Heartbeat, Instance, Session, Stranger
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.operators.commands import run
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db

KEY = "a tag key only for the tests"


@pytest.fixture
def running(alice: APIClient, engine: Engine, virtual: FakeClock) -> dict[str, Any]:
    """One session that runs, and a service at work."""
    session = order(alice)
    engine.run(5)
    at_work(virtual)
    return shown(alice, session)


def at_work(virtual: FakeClock) -> None:
    for name in ("beat", "guardian"):
        Heartbeat.objects.update_or_create(name=name, defaults={"at": virtual.now()})


def wrong(virtual: FakeClock) -> list[str]:
    return [f.what for f in auditor.audit(virtual.now()) if f.verdict == auditor.WRONG]


def odd(virtual: FakeClock) -> list[str]:
    return [f.what for f in auditor.audit(virtual.now()) if f.verdict == auditor.ODD]


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with connection.cursor() as cursor:
        rows = {}
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows[table] = cursor.fetchall()
    return rows


# --- It changes nothing -------------------------------------------------------------------------------------


def test_not_one_row_is_written_and_nothing_is_asked_but_a_listing(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock
) -> None:
    """In the worst of circumstances: things are overdue, orphaned and unresolved all at once."""
    provider.add(tag.sign("tests1", "abcdefghijklmnop", NOON + timedelta(hours=3), KEY))
    virtual.advance(3 * 3600)
    before = everything()
    provider.asked.clear()
    assert len(before) > 20
    assert run("audit").code == 1
    assert everything() == before
    assert provider.asked == [("machines", None)]


def test_errors_of_its_own_calls_are_not_counted_as_the_services(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock
) -> None:
    told: list[Any] = []

    def count(*args: Any) -> None:
        told.append(args)

    def fail() -> list[Machine]:
        for observe in http.observers:
            observe("fake", "list", "error", 0.1)
        raise Unavailable("no answer")

    provider.machines = fail  # type: ignore[method-assign]
    http.observers.append(count)
    try:
        run("audit")
        assert told == []
        assert count in http.observers, "and they are counted again afterwards"
    finally:
        http.observers.remove(count)


def test_the_database_itself_refuses_its_writes() -> None:
    Heartbeat.objects.create(name="x", at=NOON)
    if connection.vendor == "postgresql":
        pytest.skip("holds for each new transaction there; the test's own is older")
    with auditor.read_only(), pytest.raises(DatabaseError), transaction.atomic():
        Heartbeat.objects.all().delete()
    assert Heartbeat.objects.filter(name="x").exists()
    Heartbeat.objects.all().delete()
    assert not Heartbeat.objects.exists(), "afterwards it writes again"


# --- A service that keeps its promises ----------------------------------------------------------------------


def test_a_healthy_service_passes_through_a_whole_life(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.add("somebody's training box")
    engine.run(1)
    session = order(alice)
    for second in range(200):
        if second == 60:
            alice.delete(f"/api/v1/sessions/{session['id']}")
        engine.run(1)
        at_work(virtual)
        assert wrong(virtual) == [], f"after {second} s"
    ran = run("audit")
    assert ran.code == 0
    assert "listed: 1 machine, 0 ours, 1 foreign" in ran.out
    assert not [record for record in caplog.records if "AUDIT" in record.getMessage()]


# --- One that does not --------------------------------------------------------------------------------------


def test_a_silent_service_is_wrong(running: dict[str, Any], virtual: FakeClock) -> None:
    virtual.advance(60)
    Heartbeat.objects.filter(name="guardian").update(at=virtual.now())
    assert wrong(virtual) == [], "the guardian keeps the promises"
    virtual.advance(240)
    assert any("The guardian does their work (last sign of life 4 min ago)" in what for what in odd(virtual))
    virtual.advance(600)
    found = wrong(virtual)
    assert any("Nobody is at work" in what and "(last sign of life 14 min ago)" in what for what in found)
    assert any("Due and taken by nobody: 1 machine, the oldest for" in what for what in found)


def test_a_blind_service_is_wrong(running: dict[str, Any], virtual: FakeClock) -> None:
    Account.objects.update(looked_at=NOON - timedelta(minutes=20), error="no answer")
    assert any("The service is blind: no complete listing for 20 min. no answer" in what for what in wrong(virtual))
    Account.objects.update(looked_at=None)
    assert any("never seen this account" in what for what in wrong(virtual))


@pytest.mark.parametrize("trouble", [Unavailable("no answer"), Unauthorized("401")])
def test_a_blind_auditor_is_no_all_clear(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock, trouble: Exception
) -> None:
    provider.trouble["machines"] = [trouble]
    [what] = wrong(virtual)
    assert "The auditor itself gets no complete listing" in what


def test_an_auditor_without_keys_is_no_all_clear(db: None, virtual: FakeClock) -> None:
    registry.use({})
    assert any("No provider key is set here" in what for what in wrong(virtual))


def test_a_machine_without_a_row_is_wrong_when_the_service_had_its_time(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock, settings: Any
) -> None:
    machine = provider.add(tag.sign("tests1", "abcdefghijklmnop", NOON + timedelta(hours=3), KEY))
    assert wrong(virtual) == []
    assert any("The service adopts it" in f.advice for f in auditor.audit(virtual.now()))
    Stranger.objects.create(
        provider="fake", machine_id=machine, ownership="ours", first_seen_at=NOON - timedelta(minutes=20), seen_at=NOON
    )
    assert any("no row stands for it, and it has been there for 20 min" in what for what in wrong(virtual))


def test_an_old_machine_that_the_service_never_met_is_wrong_at_once(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock
) -> None:
    label = tag.sign("tests1", "abcdefghijklmnop", NOON + timedelta(hours=3), KEY)
    provider.add(label, started_at=NOON - timedelta(hours=1))
    assert any("no row stands for it" in what for what in wrong(virtual))


def test_another_deployments_machine_is_nobodys_business(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock
) -> None:
    label = tag.sign("tests2", "abcdefghijklmnop", NOON + timedelta(hours=3), KEY)
    provider.add(label, started_at=NOON - timedelta(hours=5))
    assert wrong(virtual) == []


def test_a_damaged_label_is_shown(running: dict[str, Any], provider: FakeProvider, virtual: FakeClock) -> None:
    provider.add("gs-tests1-abcdefgh")
    assert any("resembles ours" in what for what in odd(virtual))


def test_written_down_as_gone_and_listed_is_wrong(
    running: dict[str, Any], engine: Engine, provider: FakeProvider, virtual: FakeClock, alice: APIClient
) -> None:
    [machine] = provider.listed.values()
    alice.delete(f"/api/v1/sessions/{running['id']}")
    engine.run(60)
    at_work(virtual)
    assert Instance.objects.get().state == State.DESTROYED
    provider.listed[machine.id] = machine
    assert any("written down as gone" in what for what in wrong(virtual))


def test_a_machine_past_its_deadline_is_late(
    running: dict[str, Any], virtual: FakeClock, provider: FakeProvider
) -> None:
    virtual.advance(3600 + 540)
    at_work(virtual)
    assert not any("outlives" in what for what in wrong(virtual))
    virtual.advance(120)
    assert any("It outlives its deadline by 11 min" in what for what in wrong(virtual))
    provider.trouble["machines"] = [Unavailable("no answer")]
    assert any("By the rows it outlives its deadline by 11 min" in what for what in wrong(virtual))


def test_an_overdue_end_is_late(running: dict[str, Any], virtual: FakeClock) -> None:
    Instance.objects.update(state=State.DESTROYING, state_since=NOON - timedelta(minutes=11), asks=4)
    assert any("wished 11 min ago and is not proven; asked 4 times" in what for what in wrong(virtual))


def test_a_create_without_an_outcome_is_late(running: dict[str, Any], virtual: FakeClock) -> None:
    sent, due = NOON - timedelta(minutes=14), NOON + timedelta(hours=1)
    Instance.objects.create(
        provider="fake", tag="gs-y", state=State.LAUNCHING, launched_at=sent, deadline=due, hard_deadline=due
    )
    assert wrong(virtual) == [], "ten minutes for the listings to tell, and five more"
    virtual.advance(60)
    at_work(virtual)
    assert any("A create sent 15 min ago has no outcome" in what for what in wrong(virtual))


def test_an_end_without_proof_is_wrong(running: dict[str, Any], virtual: FakeClock) -> None:
    Session.objects.update(status="stopped")
    assert any("It is over, and machine 101 at fake is running" in what for what in wrong(virtual))


def test_what_runs_by_the_rows_and_is_not_listed_is_shown(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock
) -> None:
    virtual.advance(180)
    at_work(virtual)
    provider.listed.clear()
    assert any("counts as running and is not listed" in what for what in odd(virtual))
    virtual.advance(1200)
    at_work(virtual)
    assert any("counts as running and is not listed" in what for what in wrong(virtual))


def test_the_brake_is_shown(running: dict[str, Any], virtual: FakeClock) -> None:
    Account.objects.update(brake="amnesia")
    assert any("The brake is applied: amnesia." in what for what in odd(virtual))


def test_without_the_database_labels_alone_tell_what_they_can(
    running: dict[str, Any], provider: FakeProvider, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "database", lambda: "does not answer (OperationalError); check DATABASE_URL")
    virtual.advance(13 * 3600)
    assert any("does not answer" in what for what in wrong(virtual))
    assert any("outlives the deadline in its label by 60 min" in what for what in odd(virtual))


# --- What it prints -----------------------------------------------------------------------------------------


def test_json_is_one_object_and_the_error_goes_elsewhere(running: dict[str, Any], virtual: FakeClock) -> None:
    told = json.loads(run("audit", "--json").out)
    assert told["ok"] is True
    Instance.objects.update(state=State.DESTROYING, state_since=NOON - timedelta(minutes=11))
    ran = run("audit", "--json")
    told = json.loads(ran.out)
    assert ran.code == 1
    assert told["ok"] is False
    assert {"verdict", "subject", "what", "advice"} == set(told["findings"][0])


def test_each_wrong_thing_is_logged_as_an_error(
    running: dict[str, Any], virtual: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    Instance.objects.update(state=State.DESTROYING, state_since=NOON - timedelta(minutes=11))
    ran = run("audit")
    assert ran.err == "1 thing is late, blind or wrong."
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("AUDIT fake 101: Its end was wished 11 min ago")
    assert "console" in record.getMessage()


@pytest.fixture
def three_rounds(monkeypatch: pytest.MonkeyPatch, virtual: FakeClock) -> Iterator[list[float]]:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        virtual.advance(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(virtual, "sleep", sleep)
    # The test is one transaction, which would go with its connection.
    monkeypatch.setattr("gpushopper.management.commands.audit.close_old_connections", lambda: None)
    yield slept


def test_it_goes_on_whatever_it_finds(
    running: dict[str, Any], three_rounds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """As a container of its own it has to stay."""
    Instance.objects.update(state=State.DESTROYING, state_since=NOON - timedelta(minutes=11))
    with pytest.raises(KeyboardInterrupt):
        run("audit", "--every", "300")
    assert three_rounds == [300, 300, 300]
    assert len([record for record in caplog.records if "on its way" in record.getMessage() or
                "Its end was wished" in record.getMessage()]) == 3  # fmt: skip


@pytest.mark.parametrize("every", ["0", "-5", "nan", "100000"])
def test_impossible_intervals_are_refused(db: None, every: str) -> None:
    ran = run("audit", f"--every={every}")
    assert ran.code == 1
    assert "--every" in ran.err
