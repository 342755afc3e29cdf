"""Claims, fences and wake-ups; one provider that does not answer; steps that something overtakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from rest_framework.test import APIClient

from providers import clock
from providers.base import SshTarget, Unavailable
from sessions import controller, engine, lives, machines, reconcile, rows, ssh, wake
from sessions.lifecycle import Reason, State, Status
from sessions.models import Instance, Session
from sessions.seats import Seats
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider

# What never happens has this long to happen; what happens takes no time.
WITHIN = 5.0


def order(client: APIClient) -> Session:
    answer = client.post("/api/v1/sessions", {"offer_id": "fake-1", "reservation_hours": 3})
    assert answer.status_code == 201, answer.content
    return Session.objects.get()


def instance(provider: str = "fake", state: State = State.RUNNING, **known: Any) -> Instance:
    now = clock.now()
    day = now + timedelta(days=1)
    number = str(Instance.objects.count())
    plain = {
        "tag": number,
        "machine_id": number,
        "launched_at": now,
        "deadline": day,
        "hard_deadline": day,
        "due_at": now,
    }
    return Instance.objects.create(provider=provider, state=state, **{**plain, **known})


# --- Claims and fences ------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_row_is_claimed_by_one_worker_only(virtual: FakeClock) -> None:
    row = instance()
    assert rows.claim(Instance, row.pk, virtual.now()) is not None
    assert rows.claim(Instance, row.pk, virtual.now()) is None
    virtual.advance(rows.LEASE.total_seconds() - 1)
    assert rows.claim(Instance, row.pk, virtual.now()) is None
    virtual.advance(1)
    assert rows.claim(Instance, row.pk, virtual.now()) is not None, "a worker that died holds nothing for ever"


@pytest.mark.django_db
def test_a_worker_that_wakes_up_too_late_writes_nothing(virtual: FakeClock) -> None:
    row = instance(state=State.DESTROYING)
    late = rows.claim(Instance, row.pk, virtual.now())
    virtual.advance(60)
    timely = rows.claim(Instance, row.pk, virtual.now())
    assert late is not None and timely is not None
    assert not rows.write(late, asked_at=virtual.now(), asks=9)
    assert not controller.move(late, State.DESTROYED, virtual.now(), "Proven gone.")
    rows.look_again(late, None)
    fresh = Instance.objects.get()
    assert (fresh.asks, fresh.state, fresh.due_at) == (0, State.DESTROYING, virtual.now() + rows.LEASE)
    assert rows.write(timely, asks=1)


@pytest.mark.django_db
def test_a_session_is_not_put_to_sleep_over_a_move_that_its_step_has_not_seen(
    alice: APIClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step has read that the machine boots; before it says "nothing to do", the machine runs."""
    reconcile.reconcile("fake")
    session = order(alice)
    lives.advance_session(session.pk)
    row = Instance.objects.get()
    Instance.objects.update(state=State.BOOTING, machine_id="7", launched_at=virtual.now())
    Session.objects.update(due_at=virtual.now())
    plain = rows.look_again

    def overtaken(claimed: Any, at: Any) -> None:
        row.refresh_from_db()
        assert controller.move(row, State.RUNNING, virtual.now(), "It works.", verified_at=virtual.now())
        plain(claimed, at)

    monkeypatch.setattr(lives, "look_again", overtaken)
    assert lives.advance_session(session.pk)
    due = Session.objects.get().due_at
    assert due is not None and due <= virtual.now()


# --- Steps that something overtakes -------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_end_wished_during_the_login_outlasts_it(
    alice: APIClient, engine: Engine, guests: FakeGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = order(alice)
    plain = guests.run

    def run(target: SshTarget, *given: Any) -> ssh.Visit:
        controller.wish_end(session.pk, Reason.DELETED, clock.now())
        return plain(target, *given)

    monkeypatch.setattr(guests, "run", run)
    engine.run(5)
    assert guests.visits == 1
    row = Instance.objects.get()
    assert row.state == State.DESTROYING
    assert row.verified_at is None
    engine.run(60)
    assert Session.objects.get().status == "stopped"


@pytest.mark.django_db
def test_at_the_deadline_one_step_ends_both_and_asks(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider
) -> None:
    """Two hundred that end at once are not first all told of and only then asked for."""
    session = order(alice)
    engine.run(10)
    row = Instance.objects.get()
    virtual.advance((row.deadline - virtual.now()).total_seconds())
    assert machines.advance_instance(row.pk)
    assert provider.count("destroy") == 1
    session.refresh_from_db()
    assert (session.status, session.end_reason) == (Status.STOPPING, Reason.EXPIRED)


@pytest.mark.django_db
def test_a_late_step_of_the_machine_ends_no_session_that_was_extended_meanwhile(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read that the time is up; before it writes so, the deadline moves."""
    session = order(alice)
    engine.run(10)
    row = Instance.objects.get()
    early = virtual.now()
    virtual.advance((row.deadline - early).total_seconds())
    plain = machines._end_with_session

    def overtaken(claimed: Any, reason: Any, now: Any) -> None:
        assert controller.extend(session.pk, timedelta(hours=1), early) is not None
        plain(claimed, reason, now)

    monkeypatch.setattr(machines, "_end_with_session", overtaken)
    assert machines.advance_instance(row.pk)
    session.refresh_from_db()
    row.refresh_from_db()
    assert (session.status, row.state, provider.count("destroy")) == (Status.RUNNING, State.RUNNING, 0)


@pytest.mark.django_db
def test_a_message_is_not_sent_again_while_it_is_under_way(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(wake, "instance", lambda pk, *, ending: sent.append(pk))
    engine.forget()
    row = instance()
    for _ in range(4):
        engine.wake_due("beat")
        virtual.advance(1)
    assert sent == [row.pk]
    virtual.advance(engine.RESEND_AFTER)
    engine.wake_due("beat")
    assert sent == [row.pk] * 2, "it was lost"
    Instance.objects.update(due_at=virtual.now())
    engine.wake_due("beat")
    assert sent == [row.pk] * 3, "it was taken, and is due anew"


@pytest.mark.django_db
def test_a_destroy_that_failed_forgets_nothing(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    """Not even when the label is lost meanwhile, so that the id is all that leads to the machine."""
    session = order(alice)
    engine.run(5)
    (machine_id,) = provider.listed
    provider.trouble["destroy"] = [Unavailable("502")] * 2
    alice.delete(f"/api/v1/sessions/{session.pk}")
    machines.advance_instance(Instance.objects.get().pk)
    assert provider.count("destroy") == 1
    row = Instance.objects.get()
    assert (row.machine_id, row.state) == (machine_id, State.DESTROYING)
    provider.listed[machine_id] = replace(provider.listed[machine_id], label="another")
    engine.run(120)
    assert [what for verb, what in provider.asked if verb == "destroy"] == [machine_id] * 3
    assert not provider.listed
    assert Session.objects.get().status == "stopped"


# --- One provider that does not answer ------------------------------------------------------------------------


@pytest.mark.django_db
def test_what_one_provider_leaves_undone_hides_nothing_of_another(virtual: FakeClock) -> None:
    long_ago = virtual.now() - timedelta(hours=5)
    template = instance("silent", due_at=long_ago)
    Instance.objects.bulk_create(
        Instance(provider="silent", state=State.DESTROYING, tag=f"t{number}", machine_id=f"m{number}",
                 due_at=long_ago, deadline=template.deadline, hard_deadline=template.deadline)
        for number in range(rows.AT_ONCE + 1)
    )  # fmt: skip
    instance("other")
    due = instance("other", deadline=virtual.now())
    found = [row for row in rows.due_instances(virtual.now()) if row.provider == "other"]
    assert len(found) == 2
    assert found[0] == due, "ends come first"


@pytest.fixture
def silent() -> Iterator[threading.Event]:
    """Set at the end: until then the silent provider does not answer."""
    answers = threading.Event()
    yield answers
    answers.set()


def in_a_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_provider_that_never_answers_holds_up_no_other(
    silent: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_after = threading.Event()
    begun: list[str] = []

    def look_after(guardian: engine.Guardian, provider: str) -> None:
        begun.append(provider)
        if provider == "silent":
            silent.wait(60)
        else:
            looked_after.set()

    monkeypatch.setattr(engine.Guardian, "_look_after", look_after)
    guardian = engine.Guardian(threading.Event(), alone=True)

    def send_for_both() -> None:
        guardian._send_for("silent")
        guardian._send_for("other")

    for _ in range(2):  # The second round finds the silent one still busy.
        looked_after.clear()
        a_round = in_a_thread(send_for_both)
        assert looked_after.wait(WITHIN)
        a_round.join(WITHIN)
        guardian._busy["other"].join(WITHIN)
    assert begun == ["silent", "other", "other"]


def test_a_provider_that_never_answers_holds_a_few_threads_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_seats", fresh := Seats(engine._seats.count))
    answers, stuck, left = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    done: list[str] = []

    def never_answers(item: str) -> None:
        stuck.release()
        assert answers.wait(WITHIN)
        done.append(item)

    def come(item: str) -> None:
        fresh.work("silent", item, never_answers)
        left.release()

    workers = [in_a_thread(partial(come, str(number))) for number in range(6)]
    try:
        assert all(stuck.acquire(timeout=WITHIN) for _ in range(3))
        assert all(left.acquire(timeout=WITHIN) for _ in range(3)), "who finds no seat leaves its work and goes"
        fresh.work("other", "x", done.append)
        assert done == ["x"]
    finally:
        answers.set()
        for worker in workers:
            worker.join(WITHIN)
    assert sorted(done) == ["0", "1", "2", "3", "4", "5", "x"], "what was left is done by those who sat"
