"""Whole lives of sessions, through the API, with a provider that does as it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from inventory import refresh
from inventory.models import Offer
from providers import registry
from providers.base import MachineState, NotSent, NotUnderstood, Refusal, Refused, Unauthorized, Unavailable
from sessions import ssh
from sessions.lifecycle import State
from sessions.models import Account, Event, Instance, Session
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider

pytestmark = pytest.mark.django_db


def order(client: APIClient, **wishes: Any) -> dict[str, Any]:
    body = {"offer_id": "fake-1", "reservation_hours": 1, **wishes}
    answer = client.post("/api/v1/sessions", body)
    assert answer.status_code == 201, answer.content
    session: dict[str, Any] = answer.json()["session"]
    return session


def shown(client: APIClient, session: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/api/v1/sessions/{session['id']}").json()
    return answer


def test_a_plain_life(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    session = order(alice)
    assert session["status"] == "pending"
    engine.run(5)
    running = shown(alice, session)
    assert running["status"] == "running"
    assert running["ssh_command"] == "ssh -p 22 root@127.0.0.1"
    assert running["known_hosts"] == "127.0.0.1 ssh-ed25519 AAAAhost"
    assert alice.post(f"/api/v1/sessions/{session['id']}/done").status_code == 202
    engine.run(3)
    assert shown(alice, session)["status"] == "stopping", "asked for is not proven"
    engine.run(60)
    stopped = shown(alice, session)
    assert stopped["status"] == "stopped"
    assert stopped["verified_gone_at"]
    assert stopped["ssh_host"] is None
    assert provider.count("create") == 1
    assert provider.count("destroy") == 1
    assert not provider.listed


def test_the_timeline_tells_each_call_before_and_after(alice: APIClient, engine: Engine) -> None:
    session = order(alice)
    engine.run(5)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    events = alice.get(f"/api/v1/sessions/{session['id']}/events").json()["events"]
    kinds = [event["type"] for event in events]
    expected = ["session_requested", "attempt_opened", "create_sent", "create_answered", "machine_known",
                "instance_booting", "instance_running", "session_running", "session_stopping",
                "instance_destroying", "destroy_sent", "destroy_answered", "machine_denied", "instance_destroyed",
                "session_stopped"]  # fmt: skip
    assert kinds == expected


def test_a_session_ends_at_its_hour(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider
) -> None:
    session = order(alice, reservation_hours=0.5)
    engine.run(5)
    virtual.advance(1790)
    engine.run(10)
    assert provider.count("destroy") == 1
    engine.run(60)
    assert shown(alice, session)["status_reason"] == "expired"
    assert shown(alice, session)["status"] == "stopped"


def test_a_lost_answer_is_found_by_its_tag(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    def lost(spec: Any) -> str:
        provider.asked.append(("create", spec))
        provider.add(spec.label)
        raise Unavailable("the connection broke")

    provider.create = lost  # type: ignore[method-assign]
    session = order(alice)
    engine.run(10)
    assert shown(alice, session)["status"] == "running"
    assert provider.count("create") == 1


def test_a_create_that_made_nothing_is_given_up_after_the_settle_time(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    provider.trouble["create"] = [Unavailable("no answer")]
    session = order(alice)
    engine.run(300)
    assert shown(alice, session)["status"] == "provisioning"
    engine.run(400)
    failed = shown(alice, session)
    assert failed["status"] == "failed"
    assert failed["failure"]["type"] == "launch_lost"
    assert provider.count("create") == 1


def test_a_refusal_goes_on_to_the_next_offer(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused("no_such_ask", why=Refusal.OFFER_GONE)]
    session = order(alice, auto_retry=True)
    engine.run(60)
    running = shown(alice, session)
    assert running["status"] == "running"
    assert [attempt["outcome"] for attempt in running["attempts"]] == ["refused", "running"]
    assert running["offer_id"] == "fake-2"


def test_without_retry_a_refusal_fails_the_session(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused("no_such_ask", why=Refusal.OFFER_GONE)]
    session = order(alice)
    engine.run(60)
    failed = shown(alice, session)
    assert failed["status"] == "failed"
    assert failed["failure"]["retry_suggested"] is True


def test_a_refusal_that_made_a_machine_destroys_it(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    def refuse(spec: Any) -> str:
        made = provider.add(spec.label)
        raise Refused("made, not started", why=Refusal.OFFER_GONE, machine_id=made)

    provider.create = refuse  # type: ignore[method-assign]
    session = order(alice)
    engine.run(90)
    assert shown(alice, session)["status"] == "failed"
    assert not provider.listed


def test_a_refusal_that_lied_is_found_and_destroyed(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    """The machine shows up in a listing only after the refusal was believed."""
    labels = []

    def refuse(spec: Any) -> str:
        labels.append(spec.label)
        raise Refused("no_such_ask", why=Refusal.OFFER_GONE)

    provider.create = refuse  # type: ignore[method-assign]
    session = order(alice)
    engine.run(60)
    assert shown(alice, session)["status"] == "failed"
    provider.add(labels[0])
    Account.objects.update(due_at=engine.clock.now())
    engine.run(90)
    assert not provider.listed
    assert shown(alice, session)["status"] == "failed"


def test_no_money_is_not_tried_again(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused("lacks credit", why=Refusal.NO_MONEY)]
    session = order(alice, auto_retry=True)
    engine.run(60)
    assert shown(alice, session)["failure"]["type"] == "no_money"
    assert provider.count("create") == 1


def test_what_was_held_back_here_is_sent_later(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [NotSent("its turn is in 20 s", retry_after=20)]
    session = order(alice)
    engine.run(10)
    assert shown(alice, session)["status"] == "provisioning"
    engine.run(30)
    assert shown(alice, session)["status"] == "running"
    assert Instance.objects.count() == 1


def test_a_rejected_key_fails_the_session_and_touches_nothing(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    provider.trouble["create"] = [Unauthorized("the key is rejected")]
    session = order(alice)
    engine.run(60)
    assert shown(alice, session)["failure"]["type"] == "unauthorized"


def test_wrong_hardware_is_destroyed_and_the_next_offer_tried(
    alice: APIClient, engine: Engine, provider: FakeProvider, guests: FakeGuests
) -> None:
    guests.first_gpus = "NVIDIA GeForce RTX 3060, 12288, 570.124.04, 0\n"
    session = order(alice, auto_retry=True, max_retries=1)
    engine.run(60)
    running = shown(alice, session)
    assert [attempt["outcome"] for attempt in running["attempts"]] == ["wrong_hardware", "running"]
    assert len(provider.listed) == 1


@pytest.mark.usefixtures("unhurried")
def test_ssh_that_never_answers_is_given_up(alice: APIClient, engine: Engine, guests: FakeGuests) -> None:
    guests.trouble = [ssh.Unreachable("refused")] * 10_000
    session = order(alice)
    engine.run(8 * 60 + 60)
    assert shown(alice, session)["failure"]["type"] == "ssh_timeout"


@pytest.mark.parametrize("error", [Unavailable("502"), NotUnderstood("?"), Unauthorized("auth_error")])
def test_an_hour_of_trouble_with_listings_ends_nothing(
    alice: APIClient, engine: Engine, provider: FakeProvider, error: Exception
) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    provider.trouble = {verb: [error] * 10_000 for verb in ("machines", "machine", "account")}
    engine.run(3600)
    assert shown(alice, session)["status"] == "running"
    assert provider.count("destroy") == 0


def test_a_listing_that_lacks_a_running_machine_for_a_while_ends_nothing(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    hidden = dict(provider.listed)
    plain = provider.machine
    provider.machine = hidden.get  # type: ignore[method-assign]  # by id it is there all the time
    provider.listed.clear()
    Account.objects.update(due_at=engine.clock.now())
    engine.run(120)
    provider.listed.update(hidden)
    provider.machine = plain  # type: ignore[method-assign]
    engine.run(60)
    assert shown(alice, session)["status"] == "running"


def test_a_machine_that_is_really_gone_fails_its_session(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    provider.listed.clear()
    engine.run(400)
    failed = shown(alice, session)
    assert failed["failure"]["type"] == "vanished"
    assert failed["status"] == "failed"


@pytest.mark.usefixtures("unhurried")
def test_deletes_without_effect_are_asked_for_again_until_it_is_gone(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    provider.destroy = lambda machine_id: provider.asked.append(("destroy", machine_id))  # type: ignore[method-assign]
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(600)
    assert shown(alice, session)["status"] == "stopping"
    assert 4 < provider.count("destroy") < 12
    del provider.destroy
    engine.run(400)
    assert shown(alice, session)["status"] == "stopped"


def test_a_stopped_machine_is_not_a_destroyed_one(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    ((machine_id, machine),) = provider.listed.items()
    provider.listed[machine_id] = type(machine)(id=machine.id, label=machine.label, state=MachineState.DOWN)
    engine.run(700)
    assert provider.count("destroy") == 1
    assert shown(alice, session)["failure"]["type"] == "died"


def test_idle_machines_end(alice: APIClient, engine: Engine, guests: FakeGuests) -> None:
    session = order(alice, reservation_hours=3, idle_threshold_minutes=10)
    engine.run(60)
    guests.gpus = "NVIDIA GeForce RTX 4090, 24564, 570.124.04, 1\n"
    engine.run(9 * 60)
    assert shown(alice, session)["status"] == "running"
    engine.run(5 * 60)
    assert shown(alice, session)["status_reason"] == "idle"


def test_a_consumer_who_removed_our_key_keeps_the_machine(alice: APIClient, engine: Engine, guests: FakeGuests) -> None:
    session = order(alice, reservation_hours=3, idle_threshold_minutes=10)
    engine.run(5)
    guests.trouble = [ssh.Denied("no")] * 10_000
    engine.run(3600)
    assert shown(alice, session)["status"] == "running"


def test_a_changed_host_key_is_told_and_ends_nothing(alice: APIClient, engine: Engine, guests: FakeGuests) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    guests.host_key = "ssh-ed25519 AAAAother"
    engine.run(400)
    assert Event.objects.filter(kind="host_key_changed").exists()
    assert shown(alice, session)["known_hosts"].endswith("AAAAhost")
    assert shown(alice, session)["status"] == "running"


def test_extension_moves_the_deadline_of_the_machine_too(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    session = order(alice)
    engine.run(5)
    answer = alice.post(f"/api/v1/sessions/{session['id']}/extend", {"additional_hours": 2})
    assert answer.json()["new_expires_at"] == "2026-01-29T15:00:00Z"
    row = Instance.objects.get()
    assert row.deadline == Session.objects.get().expires_at
    virtual.advance(3600 * 2)
    engine.run(10)
    assert shown(alice, session)["status"] == "running"


def test_nothing_is_created_while_the_account_is_not_seen(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    provider.trouble["machines"] = [Unavailable("no answer")] * 100
    session = order(alice)
    engine.run(60)
    assert provider.count("create") == 0
    waiting = shown(alice, session)
    assert waiting["status"] == "pending"
    assert "has not been seen" in waiting["status_reason"]
    provider.trouble.clear()
    engine.run(120)
    assert shown(alice, session)["status"] == "running"


def test_a_machine_of_another_life_is_adopted_and_destroyed(
    alice: APIClient, engine: Engine, provider: FakeProvider, settings: Any
) -> None:
    from providers import tag

    label = tag.mint(settings.DEPLOYMENT_ID, engine.clock.now() + timedelta(hours=5), settings.TAG_KEYS[0])
    provider.add(label)
    foreign = provider.add("somebody's box")
    damaged = provider.add(label[:30])
    engine.run(100)
    assert provider.count("destroy") == 0, "within the grace period"
    engine.run(600)
    assert set(provider.listed) == {foreign, damaged}
    assert Instance.objects.get().state == State.DESTROYED


def test_many_unknown_machines_at_once_are_kept_until_an_operator_decides(
    alice: APIClient, engine: Engine, provider: FakeProvider, settings: Any
) -> None:
    from providers import tag

    for _ in range(4):
        soon = engine.clock.now() + timedelta(minutes=15)
        provider.add(tag.mint(settings.DEPLOYMENT_ID, soon, settings.TAG_KEYS[0]))
    engine.run(600)
    assert len(provider.listed) == 4
    assert provider.count("destroy") == 0
    session = order(alice)
    engine.run(10)
    assert "amnesia" in shown(alice, session)["status_reason"]
    engine.run(900)
    assert not provider.listed, "their own tags say when they end"


def test_a_machine_that_comes_back_is_destroyed_again(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    session = order(alice)
    engine.run(5)
    kept = dict(provider.listed)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert shown(alice, session)["status"] == "stopped"
    provider.listed.update(kept)
    engine.run(400)
    assert not provider.listed
    assert shown(alice, session)["status"] == "stopped"
    assert Event.objects.filter(message="A listing shows it again.").exists()


def test_an_offer_that_became_dearer_meanwhile_is_not_taken(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    Offer.objects.filter(pk="fake-1").update(gpu_price=1_200_000, price=1_210_000)
    engine.run(60)
    assert shown(alice, session)["status"] == "failed"
    assert provider.count("create") == 0


def test_a_start_that_lies_ahead_of_us_is_billed_from_now(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    def lost(spec: Any) -> str:
        provider.add(spec.label, started_at=engine.clock.now() + timedelta(minutes=30))
        raise Unavailable("the connection broke")

    provider.create = lost  # type: ignore[method-assign]
    session = order(alice)
    engine.run(1200)
    assert shown(alice, session)["cost_so_far"] > 0.1


def test_where_one_account_is_closed_the_next_fitting_offer_is_taken(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    other = FakeProvider("other", quotes=provider.menu)
    registry.use({"fake": provider, "other": other})
    refresh.refresh("other")
    Offer.objects.filter(provider="other").update(price=500_000, gpu_price=490_000)
    engine.run(5)
    Account.objects.filter(provider="fake").update(brake="an operator has to decide")
    answer = alice.post("/api/v1/sessions", {"gpu_type": "RTX 4090", "reservation_hours": 1})
    session = answer.json()["session"]
    assert session["provider"] == "fake"
    engine.run(30)
    assert shown(alice, session)["status"] == "pending", "most gates open again soon"
    engine.run(90)
    assert shown(alice, session)["status"] == "running"
    assert shown(alice, session)["provider"] == "other"
