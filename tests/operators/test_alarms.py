"""Alarms ring once, say what to do, and end by themselves."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from gpushopper import alarms, tasks
from gpushopper.models import Alarm
from providers import registry, tag
from providers.base import Unauthorized, Unavailable
from sessions import outlets
from sessions.lifecycle import State
from sessions.models import Account, Counter, Event, Heartbeat, Instance, Stranger
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order

pytestmark = pytest.mark.django_db

KEY = "a tag key only for the tests"


@pytest.fixture(autouse=True)
def both_engines_beat(virtual: FakeClock, db: None) -> None:
    beat(virtual)


def beat(virtual: FakeClock) -> None:
    for name in ("beat", "guardian"):
        Heartbeat.objects.update_or_create(name=name, defaults={"at": virtual.now()})


def watch(virtual: FakeClock, seconds: int) -> None:
    """The engines beat and look at the alarms, for so long."""
    for _ in range(0, seconds, 10):
        virtual.advance(10)
        beat(virtual)
        alarms.raise_new(virtual.now())


def standing(virtual: FakeClock) -> set[str]:
    return {trouble.name for trouble in alarms.current(virtual.now())}


def events(kind: str) -> int:
    return Event.objects.filter(kind=kind).count()


def leaving(**facts: Any) -> Instance:
    plain = {
        "provider": "fake", "tag": "gs-x", "state": State.DESTROYING, "state_since": NOON, "machine_id": "7",
        "deadline": NOON + timedelta(hours=1), "hard_deadline": NOON + timedelta(hours=1), "asks": 3,
    }  # fmt: skip
    return Instance.objects.create(**{**plain, **facts})


# --- Once, and until it is over -------------------------------------------------------------------------


def test_an_alarm_rings_once_and_ends_once(virtual: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    row = leaving()
    watch(virtual, 590)
    assert not Alarm.objects.exists(), "ten minutes are not over yet"
    watch(virtual, 120)
    assert events("destroy_overdue") == 1
    assert Counter.objects.get(name="alarms_raised", label="destroy_overdue").value == 1
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "Machine 7 at fake" in told[0].getMessage()
    assert "Destroy it in the provider's own console" in told[0].getMessage()
    Instance.objects.filter(pk=row.pk).update(state=State.DESTROYED)
    watch(virtual, 30)
    assert events("destroy_overdue_over") == 1
    assert Alarm.objects.get().over_at is not None
    assert standing(virtual) == set()


def test_what_stands_is_a_figure(virtual: FakeClock, client: Any) -> None:
    row = leaving()
    watch(virtual, 650)
    assert 'gpu_alarms_standing{alarm="destroy_overdue"} 1.0' in client.get("/metrics").content.decode()
    Instance.objects.filter(pk=row.pk).update(state=State.DESTROYED)
    watch(virtual, 10)
    assert 'gpu_alarms_standing{alarm="destroy_overdue"}' not in client.get("/metrics").content.decode()


def test_others_may_add_what_they_notice(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed = alarms.Trouble(
        name="unexplained_charge", subject="m7", what="A charge.", meanwhile="It grows.", advice="Look."
    )
    monkeypatch.setattr(alarms, "sources", [lambda now: [noticed]])
    watch(virtual, 30)
    assert events("unexplained_charge") == 1


def test_a_second_occurrence_rings_again(virtual: FakeClock) -> None:
    row = leaving()
    watch(virtual, 650)
    Instance.objects.filter(pk=row.pk).update(state=State.DESTROYED)
    watch(virtual, 10)
    Instance.objects.filter(pk=row.pk).update(state=State.DESTROYING, state_since=virtual.now())
    watch(virtual, 650)
    assert events("destroy_overdue") == 2
    assert Alarm.objects.filter(over_at=None).count() == 1


def test_two_processes_ring_it_once(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one read the rows before the first one wrote its own."""
    leaving()
    virtual.advance(700)
    beat(virtual)
    began = alarms.current

    def meanwhile_in_another_process(now: Any) -> list[alarms.Trouble]:
        monkeypatch.setattr(alarms, "current", began)
        found = began(now)
        alarms.raise_new(now)
        return found

    monkeypatch.setattr(alarms, "current", meanwhile_in_another_process)
    for trouble in alarms.current(virtual.now()):
        alarms._raise(trouble, virtual.now())
    assert events("destroy_overdue") == 1
    assert Alarm.objects.count() == 1


def test_both_engines_ring_the_alarms(virtual: FakeClock) -> None:
    assert alarms.raise_new in outlets.each_round
    leaving()
    virtual.advance(700)
    beat(virtual)
    tasks.tick()
    assert Alarm.objects.count() == 1


def test_every_alarm_tells_what_how_long_what_next_and_what_to_do(virtual: FakeClock, provider: FakeProvider) -> None:
    leaving()
    leaving(tag="gs-y", machine_id="8", state=State.RUNNING, deadline=NOON)
    leaving(tag="gs-z", machine_id="9", state=State.RUNNING, adopted_at=NOON)
    for number in range(3):
        leaving(tag=f"gs-{number}", machine_id="", state=State.LAUNCHING, launched_at=NOON)
    Account.objects.update_or_create(
        provider="fake",
        defaults={"brake": "amnesia", "unauthorized": True, "failures": 4, "error": "401", "looked_at": NOON},
    )
    Stranger.objects.create(
        provider="fake", machine_id="5", label="gs-tests1-cut", ownership="suspect", first_seen_at=NOON, seen_at=NOON
    )
    Event.objects.create(at=NOON + timedelta(seconds=1100), kind="host_key_changed", message="another",
                         instance=Instance.objects.get(machine_id="8"))  # fmt: skip
    virtual.advance(1200)
    troubles = alarms.current(virtual.now())
    assert {trouble.name for trouble in troubles} == {
        "destroy_overdue", "deadline_passed", "orphan_adopted", "unresolved_creates", "brake_applied",
        "credentials_rejected", "provider_blind", "suspect_label", "host_key_changed", "no_heartbeat",
    }  # fmt: skip
    for trouble in troubles:
        for part in (trouble.what, trouble.meanwhile, trouble.advice):
            assert part[0].isupper() or part.startswith("fake"), part
            assert part[-1] in ".?", part
        assert len(trouble.text) < 1000
        assert ".." not in trouble.text


# --- Providers ------------------------------------------------------------------------------------------


def test_a_quarter_of_an_hour_without_a_listing_is_blindness(
    virtual: FakeClock, provider: FakeProvider, engine: Engine
) -> None:
    engine.run(2)
    provider.trouble["machines"] = [Unavailable("no answer")] * 200
    while virtual.instant < NOON + timedelta(minutes=14):
        engine.run(10)
        beat(virtual)
    assert "provider_blind" not in standing(virtual)
    while virtual.instant < NOON + timedelta(minutes=22):
        engine.run(10)
        beat(virtual)
        alarms.raise_new(virtual.now())
    assert "provider_blind" in standing(virtual)
    assert events("provider_blind") == 1
    assert "no answer" in Alarm.objects.get(name="provider_blind").text
    provider.trouble.clear()
    engine.run(70)
    beat(virtual)
    alarms.raise_new(virtual.now())
    assert events("provider_blind_over") == 1


def test_a_service_that_was_stopped_overnight_raises_no_alarm_when_it_starts(
    virtual: FakeClock, provider: FakeProvider, engine: Engine
) -> None:
    engine.run(2)
    watch(virtual, 60)
    virtual.advance(8 * 3600)
    alarms.raise_new(virtual.now())  # the first round, before beat's first tick and before the first listing
    assert not Alarm.objects.exists()
    engine.run(5)
    watch(virtual, 120)
    assert not Alarm.objects.exists()


def test_a_listing_that_nobody_makes_is_blindness_too(virtual: FakeClock, provider: FakeProvider) -> None:
    """No failure is counted where nobody tries: a dead worker of the listings."""
    Account.objects.create(provider="fake", looked_at=NOON)
    watch(virtual, 1260)
    assert "provider_blind" in standing(virtual)


def test_an_account_that_is_listed_each_hour_is_not_blind_in_between(
    virtual: FakeClock, provider: FakeProvider, settings: Any
) -> None:
    settings.RECONCILIATION_INTERVAL = timedelta(hours=1)
    Account.objects.create(provider="fake", looked_at=NOON)
    watch(virtual, 3600)
    assert standing(virtual) == set()


def test_machines_at_a_provider_whose_key_was_taken_away_are_an_alarm(virtual: FakeClock) -> None:
    Account.objects.create(provider="fake", looked_at=NOON)
    assert standing(virtual) == set(), "nothing of ours is there"
    leaving(state=State.RUNNING)
    [trouble] = alarms.current(virtual.now())
    assert trouble.name == "provider_blind"
    assert "no key for it is set" in trouble.what


def test_a_rejected_key_is_told_until_a_listing_works_again(
    virtual: FakeClock, provider: FakeProvider, engine: Engine
) -> None:
    provider.trouble["machines"] = [Unauthorized("401"), Unavailable("no answer"), Unavailable("no answer")]
    engine.run(1)
    alarms.raise_new(virtual.now())
    assert events("credentials_rejected") == 1
    engine.run(8)
    alarms.raise_new(virtual.now())
    assert Account.objects.get().unauthorized
    assert "credentials_rejected" in standing(virtual), "no answer is not an accepted key"
    engine.run(60)
    alarms.raise_new(virtual.now())
    assert events("credentials_rejected") == 1
    assert events("credentials_rejected_over") == 1


def test_the_brake_is_an_alarm_until_it_is_released(virtual: FakeClock, provider: FakeProvider, engine: Engine) -> None:
    for number in range(5):
        nonce = f"abcdefghijklmno{'abcde'[number]}"
        provider.add(tag.sign("tests1", nonce, NOON + timedelta(hours=3), KEY))
    engine.run(500)
    beat(virtual)
    alarms.raise_new(virtual.now())
    assert events("brake_applied") == 1
    assert Alarm.objects.filter(name="orphan_adopted").count() == 5
    assert events("orphan_adopted") == 5, "the controller told of them; the alarm does not do so again"
    assert len(provider.listed) == 5, "they may be people's live machines"
    from sessions import controller

    controller.release_brake("fake", virtual.now(), actor="admin")
    alarms.raise_new(virtual.now())
    assert events("brake_applied_over") == 1


# --- Engines --------------------------------------------------------------------------------------------


def test_a_silent_beat_is_an_alarm_that_the_guardian_rings(virtual: FakeClock) -> None:
    watch(virtual, 120)
    for _ in range(12):
        virtual.advance(10)
        Heartbeat.objects.filter(name="guardian").update(at=virtual.now())
        alarms.raise_new(virtual.now())
    [row] = Alarm.objects.all()
    assert row.subject == "beat"
    assert "The guardian does their work" in row.text


def test_with_nobody_at_work_the_first_page_says_so(virtual: FakeClock) -> None:
    watch(virtual, 60)
    virtual.advance(3600)
    told = {trouble.subject: trouble for trouble in alarms.current(virtual.now())}
    assert "Nobody looks after the machines" in told["beat"].meanwhile
    assert "Nothing is done for any machine." in told["guardian"].meanwhile


def test_a_plain_life_rings_nothing(
    alice: APIClient, virtual: FakeClock, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    for _ in range(40):
        engine.run(10)
        beat(virtual)
        alarms.raise_new(virtual.now())
    alice.delete(f"/api/v1/sessions/{session['id']}")
    for _ in range(10):
        engine.run(10)
        beat(virtual)
        alarms.raise_new(virtual.now())
    assert not Alarm.objects.exists()
    assert registry.all()
