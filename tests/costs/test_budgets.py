"""Budgets at work: what is refused, reserved, released, told, ended, and by whom they may be changed."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from rest_framework.test import APIClient

from costs import budgets, ledger, mails, tasks, webhooks
from costs.budgeting import OnLimit, Period
from costs.models import Alert, Budget, Delivery, Endpoint, Mail
from inventory import refresh
from inventory.models import Offer
from providers.base import MachineState, PriceParts, Refusal, Refused
from sessions import controller, reconcile
from sessions.lifecycle import LIVE, Reason
from sessions.models import Account, Instance, Session
from tests.conftest import ClientFor
from tests.costs import usage
from tests.costs.receiver import Receiver
from tests.costs.test_ledger import reprice
from tests.costs.test_webhooks import deliver_all
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db

# `fake-1` costs 0.40 USD/h and 0.01 for its disk: with the tenth on top, 0.451 for an hour.
AN_HOUR = 0.451
USD = 1_000_000


def set_budget(client: APIClient, limit: float | str, **more: Any) -> dict[str, Any]:
    body = {"period": "monthly", "limit_usd": limit, "on_limit": "block", **more}
    answer = client.post("/api/v1/budgets", body)
    assert answer.status_code == 201, answer.content
    made: dict[str, Any] = answer.json()
    return made


def budget(limit: int, *, period: Period = Period.MONTHLY, on_limit: OnLimit = OnLimit.BLOCK, **more: Any) -> Budget:
    row = Budget(consumer="alice", period=period, limit=limit, on_limit=on_limit, due_at=NOON, **more)
    budgets.write(row, NOON)
    return row


def dearer(percent: int) -> dict[str, int]:
    """The columns of an offer whose GPU costs `percent` of what it did."""
    return {"gpu_price": 4_000 * percent, "price": 4_000 * percent + 10_000}


def refused(client: APIClient, **wishes: Any) -> str:
    answer = client.post("/api/v1/sessions", {"offer_id": "fake-1", "reservation_hours": 1, **wishes})
    assert answer.status_code == 409, answer.content
    assert answer.json()["error_type"] == "budget_exceeded"
    return str(answer.json()["error"])


def room(client: APIClient, made: dict[str, Any]) -> tuple[float, float, float]:
    found = client.get(f"/api/v1/budgets/{made['id']}").json()
    return found["spent"], found["reserved"], found["remaining"]


# --- Reservations -----------------------------------------------------------------------------------------------


def test_a_wish_that_does_not_fit_is_refused_with_the_numbers(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, 1)
    order(alice, reservation_hours=1)
    sentence = refused(alice, offer_id="fake-2", reservation_hours=2)
    assert sentence == (
        "This needs up to 0.9020 USD (2 h and what its end may take), and the monthly budget of 1.00 USD has "
        "0.5490 USD left: 0.00 are spent, 0.4510 reserved for what runs."
    )
    assert Session.objects.count() == 1
    assert order(alice, offer_id="fake-2", reservation_hours=1), "a smaller one fits"


def test_a_wish_that_fits_exactly_is_taken(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, "0.451")
    order(alice)


def test_one_micro_dollar_too_little_refuses(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, "0.450999")
    refused(alice)


def test_a_refusal_leaves_no_trace(operator: APIClient, provider: FakeProvider, alice: APIClient) -> None:
    set_budget(operator, 0, consumer_id="alice")
    refused(alice)
    assert not Session.objects.exists()
    assert not Instance.objects.exists()


def test_every_hard_budget_has_to_hold(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, 100)
    set_budget(alice, "0.4", period="daily", on_limit="stop")
    assert "daily budget" in refused(alice)


def test_an_alert_budget_never_refuses(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, 0, on_limit="alert")
    order(alice)


def test_anothers_budget_is_another_matter(client_for: ClientFor, provider: FakeProvider) -> None:
    set_budget(client_for("bob"), 0)
    order(client_for("alice"))


def test_what_is_spent_and_reserved_moves_from_one_to_the_other(
    alice: APIClient, engine: Engine, virtual: FakeClock
) -> None:
    made = set_budget(alice, 10)
    order(alice, reservation_hours=2)
    assert room(alice, made) == (0, 0.902, 9.098)
    engine.run(2)
    virtual.advance(3600)
    spent, reserved, remaining = room(alice, made)
    assert spent == pytest.approx(0.41, abs=0.001)
    assert (spent + reserved, remaining) == (pytest.approx(0.902), pytest.approx(9.098))


def test_the_reservation_is_released_when_the_end_is_proven(alice: APIClient, engine: Engine) -> None:
    made = set_budget(alice, 10)
    session = order(alice, reservation_hours=10)
    engine.run(5)
    alice.post(f"/api/v1/sessions/{session['id']}/done")
    engine.run(3)
    assert shown(alice, session)["status"] == "stopping"
    assert room(alice, made)[1] > 4, "asked for is not proven: the money is kept"
    engine.run(60)
    spent, reserved, _ = room(alice, made)
    assert reserved == 0
    assert 0 < spent < 0.01


def test_a_refused_create_gives_everything_back(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused("no_such_ask", why=Refusal.OFFER_GONE)]
    made = set_budget(alice, 1)
    order(alice)
    engine.run(90)
    assert room(alice, made) == (0, 0, 1)


def test_a_machine_that_comes_back_is_reserved_for_again(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    made = set_budget(alice, 1)
    session = order(alice)
    engine.run(5)
    row = Instance.objects.get()
    machine = provider.listed[row.machine_id]
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert room(alice, made)[1] == 0
    provider.listed[row.machine_id] = machine
    Account.objects.update(due_at=engine.clock.now())
    reconcile.reconcile("fake")
    assert shown(alice, session)["status"] == "stopping"
    assert room(alice, made)[1] == pytest.approx(AN_HOUR, abs=0.01)


def test_an_extension_reserves_too(alice: APIClient, engine: Engine) -> None:
    set_budget(alice, "0.95")
    session = order(alice)
    engine.run(5)
    path = f"/api/v1/sessions/{session['id']}/extend"
    answer = alice.post(path, {"additional_hours": 2})
    assert (answer.status_code, answer.json()["error_type"]) == (409, "budget_exceeded")
    assert shown(alice, session)["reservation_hours"] == 1
    assert alice.post(path, {"additional_hours": 1}).status_code == 200
    assert alice.post(path, {"additional_hours": 1}).status_code == 409


def test_a_retry_stays_within_what_was_reserved(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    """The next offers are 20 % and 30 % dearer; a quarter more was reserved, so only the first is in reach."""
    made = set_budget(alice, 10)
    session = order(alice, auto_retry=True)
    assert room(alice, made)[1] == pytest.approx(AN_HOUR * 1.25)
    Offer.objects.filter(pk="fake-2").update(**dearer(130))
    Offer.objects.filter(pk="fake-3").update(**dearer(120))
    provider.trouble["create"] = [Refused("gone", why=Refusal.OFFER_GONE), Refused("gone", why=Refusal.OFFER_GONE)]
    engine.run(90)
    assert [attempt["offer_id"] for attempt in shown(alice, session)["attempts"]] == ["fake-1", "fake-3"]
    assert shown(alice, session)["failure"]["type"] == "no_offer"


def test_the_upper_price_of_a_wish_is_what_is_reserved_for(alice: APIClient, provider: FakeProvider) -> None:
    made = set_budget(alice, 10)
    order(alice, auto_retry=True, max_price_per_hour=2)
    assert room(alice, made)[1] == 2.2


@pytest.mark.parametrize(("percent", "status"), [(104, "running"), (107, "failed")])
def test_a_price_that_drifts_leaves_something_for_the_end(
    percent: int, status: str, alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    set_budget(alice, 10)
    session = order(alice)
    provider.create = lambda spec: provider.add(spec.label, price=PriceParts(gpu=4_100 * percent))  # type: ignore[method-assign]
    engine.run(120)
    assert shown(alice, session)["status"] == status
    assert (shown(alice, session)["failure"] or {}).get("type") == (None if status == "running" else "too_dear")


def test_without_a_hard_budget_a_wish_keeps_no_upper_price(alice: APIClient, provider: FakeProvider) -> None:
    set_budget(alice, 1, on_limit="alert")
    order(alice, auto_retry=True)
    assert Session.objects.get().max_price is None


def test_once_it_runs_only_its_own_price_is_reserved(alice: APIClient, engine: Engine) -> None:
    made = set_budget(alice, 10)
    order(alice, auto_retry=True, max_price_per_hour=2)
    engine.run(5)
    spent, reserved, _ = room(alice, made)
    assert spent + reserved == pytest.approx(AN_HOUR)


def lingering(provider: FakeProvider, virtual: FakeClock, seconds: int) -> None:
    """A delete takes effect so many seconds later."""
    listing, gone = provider.machines, dict[str, datetime]()

    def destroy(machine_id: str) -> None:
        gone.setdefault(machine_id, virtual.now() + timedelta(seconds=seconds))

    def machines() -> Any:
        for machine_id, at in gone.items():
            if virtual.now() >= at:
                provider.listed.pop(machine_id, None)
        return listing()

    provider.destroy, provider.machines = destroy, machines  # type: ignore[method-assign]


@pytest.mark.parametrize("hours", [0.0003, 0.02, 0.25, 1])
def test_a_session_stays_within_what_was_reserved_however_short(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock, hours: float
) -> None:
    lingering(provider, virtual, 60)
    made = set_budget(alice, 10)
    order(alice, reservation_hours=hours)
    reserved = room(alice, made)[1]
    engine.run(hours * 3600 + 300)
    assert room(alice, made)[0] <= reserved


def test_a_price_that_rises_is_reserved_for(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    made = set_budget(alice, 10)
    order(alice, reservation_hours=10)
    engine.run(5)
    reprice(provider, price=PriceParts(gpu=800_000, storage=20_000))
    engine.run(306)
    assert sum(room(alice, made)[:2]) > 8.2, "0.82 USD/h for what is left of ten hours"
    assert refused(alice, offer_id="fake-2", reservation_hours=12)


def test_a_retry_that_is_cheaper_gives_nothing_back_before_it_is_used(
    alice: APIClient, engine: Engine, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never boots is listed less often, since a quarter of an hour is waited for it.
    monkeypatch.setattr(reconcile, "FAST", timedelta(seconds=15))
    Offer.objects.filter(pk="fake-3").update(**dearer(300))
    made = set_budget(alice, "2.2")
    create, asked = provider.create, []

    def first_never_boots(spec: Any) -> str:
        asked.append(spec)
        if len(asked) > 1:
            return create(spec)
        return provider.add(spec.label, state=MachineState.STARTING, ssh_targets=())

    provider.create = first_never_boots  # type: ignore[method-assign]
    session = order(alice, offer_id="fake-3", auto_retry=True, reservation_hours=1)
    engine.run(17 * 60)
    assert shown(alice, session)["status"] == "running"
    spent, reserved, _ = room(alice, made)
    engine.run(3600)
    assert room(alice, made)[0] <= spent + reserved


def test_a_hard_budget_pays_for_one_machine_at_a_time(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    made = set_budget(alice, "0.36")
    lingering(provider, virtual, 120)
    create, asked = provider.create, []

    def first_is_broken(spec: Any) -> str:
        asked.append(virtual.now())
        if len(asked) > 1:
            return create(spec)
        return provider.add(spec.label, state=MachineState.BROKEN, ssh_targets=())

    provider.create = first_is_broken  # type: ignore[method-assign]
    session = order(alice, reservation_hours=0.5, auto_retry=True)
    engine.run(600)
    assert shown(alice, session)["status"] == "running"
    assert asked[1] - asked[0] > timedelta(seconds=120)
    engine.run(3600)
    assert room(alice, made)[0] <= 0.36


def test_an_upper_price_of_ones_own_leaves_something_for_the_end_too(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    set_budget(alice, "4.51")
    session = order(alice, reservation_hours=10, max_price_per_hour=5)
    provider.create = lambda spec: provider.add(spec.label, price=PriceParts(gpu=4_100 * 110))  # type: ignore[method-assign]
    engine.run(120)
    assert shown(alice, session)["status"] == "failed", "a tenth dearer would leave nothing"


def test_an_idempotent_repetition_is_not_counted_twice(alice: APIClient, provider: FakeProvider) -> None:
    made = set_budget(alice, "0.5")
    for _ in range(2):
        answer = alice.post("/api/v1/sessions", {"offer_id": "fake-1", "reservation_hours": 1},
                            headers={"Idempotency-Key": "once"})  # fmt: skip
        assert answer.status_code == 201
    assert room(alice, made)[1] == AN_HOUR


def test_yesterdays_money_is_not_todays(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    made = set_budget(alice, "0.5", period="daily")
    session = order(alice)
    engine.run(5)
    virtual.advance(1800)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert room(alice, made)[0] == pytest.approx(0.206, abs=0.01)
    refused(alice, offer_id="fake-2")
    virtual.advance(12 * 3600)
    engine.run(3)
    assert room(alice, made) == (0, 0, 0.5)
    order(alice, offer_id="fake-2")


# --- At the limit ------------------------------------------------------------------------------------------------


def ends_within(engine: Engine, provider: FakeProvider, seconds: int) -> bool:
    for _ in range(seconds):
        engine.settle()
        budgets.watch(engine.clock.now())
        engine.settle()
        if not provider.listed:
            return True
        engine.clock.advance(1)
    return False


def test_stop_ends_what_runs_and_the_overshoot_is_a_tick_and_the_destroy(
    alice: APIClient, operator: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    made = set_budget(operator, 10, consumer_id="alice", on_limit="stop")
    session = order(alice, reservation_hours=12)
    engine.run(5)
    alice_budget = Budget.objects.get()
    Budget.objects.update(limit=205_000)  # half an hour's worth
    for _ in range(35 * 60):
        budgets.watch(virtual.now())
        virtual.advance(1)
    assert shown(alice, session)["status"] == "stopping"
    assert ends_within(engine, provider, 60)
    engine.run(60)
    ended = shown(alice, session)
    assert (ended["status"], ended["failure"]) == ("stopped", None)
    assert ended["status_reason"].startswith("budget: the monthly budget of 0.2050 USD is used up")
    wished = Session.objects.get().wished_at
    assert wished is not None
    at_the_limit = NOON + timedelta(minutes=30)
    assert at_the_limit <= wished <= at_the_limit + budgets.WATCH_EVERY + timedelta(seconds=10)
    assert made["id"] == str(alice_budget.pk)


def test_block_lets_what_runs_go_on(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    set_budget(alice, 10)
    session = order(alice)
    engine.run(5)
    Budget.objects.update(limit=1)
    virtual.advance(60)
    budgets.watch(virtual.now())
    engine.run(5)
    assert shown(alice, session)["status"] == "running"
    assert provider.count("destroy") == 0


def test_stop_touches_nobody_else(client_for: ClientFor, engine: Engine, virtual: FakeClock) -> None:
    alice, bob = client_for("alice"), client_for("bob")
    order(alice)
    theirs = order(bob, offer_id="fake-2")
    engine.run(5)
    set_budget(alice, 0, on_limit="stop")
    engine.run(5)
    assert shown(bob, theirs)["status"] == "running"
    assert Session.objects.get(consumer="alice").end_reason == Reason.BUDGET


def test_a_budget_below_what_is_spent_is_taken_acts_at_once_and_says_so(
    alice: APIClient, engine: Engine, virtual: FakeClock
) -> None:
    order(alice, reservation_hours=2)
    engine.run(5)
    virtual.advance(3600)
    made = set_budget(alice, "0.1", on_limit="stop")
    assert made["notice"].startswith("0.41")
    assert made["notice"].endswith("Nothing new fits, and what runs is ended.")
    assert made["remaining"] < 0
    assert Session.objects.get().end_reason == Reason.BUDGET
    assert set(Alert.objects.values_list("threshold", flat=True)) == {5000, 8000, 10000}


# --- Alerts ------------------------------------------------------------------------------------------------------


def spent_is(monkeypatch: pytest.MonkeyPatch, micros: int) -> None:
    monkeypatch.setattr(budgets.ledger, "spent", lambda *given: micros)


def test_each_threshold_alerts_once_in_a_period(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks.add("http://127.0.0.1:1/", consumer="alice", events=list(webhooks.CONSUMER_EVENTS))
    budget(10 * USD, period=Period.DAILY, on_limit=OnLimit.ALERT)
    for spent in (0, 4_999_999, 5_000_000, 7_000_000, 9_000_000, 10_000_000, 12_000_000):
        spent_is(monkeypatch, spent)
        for _ in range(3):
            budgets.watch(virtual.now())
            virtual.advance(20)
    told = [json.loads(row.body) for row in Delivery.objects.order_by("id")]
    assert [(each["type"], each["data"]["threshold"], each["data"]["spent"]) for each in told] == [
        ("budget.threshold", 0.5, 5.0), ("budget.threshold", 0.8, 9.0), ("budget.exceeded", 1.0, 10.0),
    ]  # fmt: skip
    virtual.instant = datetime(2026, 1, 30, 0, 0, 30, tzinfo=UTC)
    spent_is(monkeypatch, 5_000_000)
    budgets.watch(virtual.now())
    assert Delivery.objects.count() == 4, "a new day, a new alert"


def test_another_limit_is_another_promise(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    row = budget(10 * USD)
    spent_is(monkeypatch, 9 * USD)
    budgets.watch(virtual.now())
    Budget.objects.update(limit=100 * USD, due_at=virtual.now())
    spent_is(monkeypatch, 60 * USD)
    budgets.watch(virtual.now())
    Budget.objects.update(limit=10 * USD, due_at=virtual.now())
    spent_is(monkeypatch, 9 * USD)
    budgets.watch(virtual.now())
    assert sorted(row.alerts.values_list("limit", "threshold")) == [
        (10 * USD, 5000), (10 * USD, 8000), (100 * USD, 5000),
    ]  # fmt: skip


def test_another_period_is_another_promise_on_the_first_of_a_month_too(
    virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    virtual.instant = datetime(2026, 2, 1, 9, tzinfo=UTC)
    row = budget(10 * USD, period=Period.DAILY)
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    row.period = Period.MONTHLY
    budgets.write(row, virtual.now())
    budgets.watch(virtual.now())
    of_the_first = row.alerts.filter(period_start=datetime(2026, 2, 1, tzinfo=UTC))
    assert sorted(of_the_first.values_list("period", "threshold")) == [("daily", 5000), ("monthly", 5000)]


def test_a_crossing_just_before_midnight_is_told_after_it(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    row = budget(10 * USD, period=Period.DAILY)
    midnight = datetime(2026, 1, 30, tzinfo=UTC)
    monkeypatch.setattr(budgets.ledger, "spent", lambda who, start, end, now: 6 * USD if end == midnight else 0)
    Budget.objects.update(watched_at=midnight - timedelta(seconds=8), due_at=midnight)
    virtual.instant = midnight + timedelta(seconds=7)
    budgets.watch(virtual.now())
    [alert] = row.alerts.all()
    assert (alert.period_start, alert.threshold) == (datetime(2026, 1, 29, tzinfo=UTC), 5000)


@pytest.mark.parametrize("step", ["emit", "queue", "write"])
def test_a_death_at_any_step_neither_loses_nor_doubles_an_alert(
    step: str, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    class Killed(BaseException):
        pass

    def die(*given: Any, **more: Any) -> None:
        raise Killed

    settings.ALERT_EMAILS = ["ops@example.org"]
    webhooks.add("http://127.0.0.1:1/", consumer="alice", events=list(webhooks.CONSUMER_EVENTS))
    budget(10 * USD)
    spent_is(monkeypatch, 6 * USD)
    owner = {"emit": webhooks, "queue": mails, "write": budgets.rows}[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, die)
        with pytest.raises(Killed):
            budgets.watch(virtual.now())
    assert not Alert.objects.exists()
    budgets.watch(virtual.now())
    assert not Alert.objects.exists(), "its lease lasts"
    for _ in range(5):
        virtual.advance(31)
        budgets.watch(virtual.now())
    assert (Alert.objects.count(), Delivery.objects.count(), Mail.objects.count()) == (1, 1, 1)


def test_a_death_between_the_stop_and_the_alert_tells_later(
    alice: APIClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*given: Any) -> None:
        raise Killed

    order(alice)
    engine.run(5)
    budget(0, on_limit=OnLimit.STOP)
    with monkeypatch.context() as patched:
        patched.setattr(budgets, "_alert", die)
        with pytest.raises(Killed):
            budgets.watch(virtual.now())
    assert Session.objects.get().end_reason == Reason.BUDGET, "the end goes first"
    virtual.advance(31)
    budgets.watch(virtual.now())
    assert Alert.objects.filter(threshold=10_000).count() == 1


def test_one_broken_budget_hides_no_other(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    budget(10 * USD)
    broken = budget(10 * USD)
    Budget.objects.filter(pk=broken.pk).update(thresholds=["half"], due_at=NOON - timedelta(seconds=1))
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    assert Alert.objects.count() == 1


def test_one_session_that_can_not_be_ended_shields_no_other(
    alice: APIClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = order(alice, reservation_hours=3), order(alice, offer_id="fake-2", reservation_hours=3)
    engine.run(60)
    wish_end = controller.wish_end

    def stuck(pk: Any, *args: Any, **said: Any) -> bool:
        if str(pk) == first["id"]:
            raise RuntimeError("a bug")
        return wish_end(pk, *args, **said)

    monkeypatch.setattr(controller, "wish_end", stuck)
    set_budget(alice, "0.001", on_limit="stop")
    assert shown(alice, first)["status"] == "running"
    assert shown(alice, second)["status"] == "stopping"
    assert Alert.objects.exists()


def test_yesterdays_money_that_becomes_known_today_is_told(virtual: FakeClock) -> None:
    """A create at 23:58 whose answer was lost; its machine is found after midnight, and billed from 23:58."""
    midnight = datetime(2026, 1, 30, tzinfo=UTC)
    row = budget(10_000, period=Period.DAILY, on_limit=OnLimit.ALERT)
    for moment in (midnight - timedelta(seconds=30), midnight + timedelta(seconds=20)):
        virtual.instant = moment
        budgets.watch(virtual.now())
    ledger.record(usage.machine(usage.session()), midnight - timedelta(minutes=2), usage.RATE)
    virtual.instant = midnight + timedelta(seconds=60)
    budgets.watch(virtual.now())
    assert row.alerts.filter(period_start=midnight - timedelta(days=1)).count() == 3


def test_a_budget_of_nothing_is_silent_while_nothing_is_spent(alice: APIClient, virtual: FakeClock) -> None:
    set_budget(alice, 0, period="daily")
    virtual.advance(86_400)
    budgets.watch(virtual.now())
    assert not Alert.objects.exists()


def test_each_budget_is_looked_at_once_in_its_interval(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat's tick and the guardian's round both ask; the row says whether it is time."""
    budget(10 * USD)
    looks: list[object] = []
    monkeypatch.setattr(budgets.ledger, "spent", lambda *given: looks.append(given) or 0)
    for _ in range(60):
        tasks.tick()
        budgets.watch(virtual.now())
        virtual.advance(1)
    assert len(looks) == 6


def test_a_budgets_own_webhook_is_told_of_it_only(alice: APIClient, receiver: Receiver, virtual: FakeClock,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    made = set_budget(alice, 10, webhook_url=receiver.url)
    set_budget(alice, 20)
    assert made["webhook_secret"].startswith("whsec_")
    again = alice.get(f"/api/v1/budgets/{made['id']}")
    assert "whsec_" not in again.content.decode()
    assert again.json()["webhook_url"] == receiver.url
    spent_is(monkeypatch, 10 * USD)
    virtual.advance(15)
    budgets.watch(virtual.now())
    deliver_all(virtual)
    told = [got.verified_at(made["webhook_secret"], virtual) for got in receiver.got]
    assert [each["data"]["threshold"] for each in told] == [0.5, 0.8, 1.0]
    assert {each["data"]["budget_id"] for each in told} == {made["id"]}


def test_the_webhook_of_a_budget_follows_its_url(alice: APIClient, receiver: Receiver) -> None:
    made = set_budget(alice, 10, webhook_url=receiver.url)
    path, body = f"/api/v1/budgets/{made['id']}", {"period": "daily", "limit_usd": 5}
    same = alice.put(path, {**body, "webhook_url": receiver.url}).json()
    assert "webhook_secret" not in same
    other = alice.put(path, {**body, "webhook_url": receiver.url + "/other"}).json()
    assert other["webhook_secret"] != made["webhook_secret"]
    assert alice.put(path, body).json()["webhook_url"] is None
    assert not Endpoint.objects.exists()


def test_mail_goes_out_from_a_row(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.ALERT_EMAILS = ["ops@example.org"]
    budget(10 * USD, on_limit=OnLimit.STOP)
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    assert not mail.outbox, "not while the alert is being written"
    row = Mail.objects.get()
    assert mails.send(row.pk)
    assert not mails.send(row.pk)
    [letter] = mail.outbox
    assert letter.to == ["ops@example.org"]
    assert letter.subject == "alice: 50 % of the monthly budget are spent"
    assert "6.00 USD of the monthly budget of 10.00 USD" in letter.body


def test_a_mail_server_that_is_down_loses_no_mail(
    virtual: FakeClock, monkeypatch: pytest.MonkeyPatch, settings: Any, no_messages: list[tuple[str, object]]
) -> None:
    settings.ALERT_EMAILS = ["ops@example.org"]
    settings.EMAIL_BACKEND = "tests.costs.test_budgets.NoMailServer"
    budget(10 * USD)
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    row = Mail.objects.get()
    assert not mails.send(row.pk)
    row.refresh_from_db()
    assert "nobody answers" in row.error and row.sent_at is None
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    virtual.advance(5)
    no_messages.clear()
    tasks.tick()
    assert (mails.SEND, row.pk) in no_messages
    assert mails.send(row.pk)
    assert len(mail.outbox) == 1


class NoMailServer:
    def __init__(self, **kwargs: Any) -> None: ...

    def send_messages(self, messages: Any) -> int:
        raise ConnectionRefusedError("nobody answers")


def test_two_attempts_at_one_mail_bear_one_name(
    virtual: FakeClock, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.ALERT_EMAILS = ["ops@example.org"]
    budget(10 * USD)
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    row = Mail.objects.get()
    mails.send(row.pk)
    Mail.objects.update(sent_at=None, due_at=virtual.now())  # It died between the sending and the writing.
    virtual.advance(301)
    mails.send(row.pk)
    assert len(mail.outbox) == 2
    assert len({each.extra_headers["Message-ID"] for each in mail.outbox}) == 1


def test_without_mail_no_mail_is_queued(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    budget(10 * USD)
    spent_is(monkeypatch, 6 * USD)
    budgets.watch(virtual.now())
    assert Alert.objects.exists()
    assert not Mail.objects.exists()


# --- Whose it is ---------------------------------------------------------------------------------------------------


def test_a_consumer_manages_its_own(alice: APIClient, provider: FakeProvider) -> None:
    made = set_budget(alice, 5, period="daily", on_limit="stop", thresholds=[0.25, 0.9])
    assert (made["consumer_id"], made["set_by"]) == ("alice", "consumer")
    assert (made["period_start"], made["period_end"]) == ("2026-01-29T00:00:00Z", "2026-01-30T00:00:00Z")
    path = f"/api/v1/budgets/{made['id']}"
    changed = alice.put(path, {"period": "total", "limit_usd": 7.5}).json()
    assert changed["id"] == made["id"]
    assert (changed["limit_usd"], changed["period"], changed["on_limit"]) == (7.5, "total", "block")
    assert (changed["thresholds"], changed["period_start"]) == ([0.5, 0.8, 1.0], None)
    assert alice.get("/api/v1/budgets").json()["budgets"] == [changed]
    assert alice.delete(path).status_code == 204
    assert alice.get(path).status_code == 404


def test_what_an_operator_has_set_a_consumer_can_see_and_not_loosen(
    alice: APIClient, operator: APIClient, receiver: Receiver
) -> None:
    made = set_budget(operator, 5, consumer_id="alice", webhook_url=receiver.url)
    path = f"/api/v1/budgets/{made['id']}"
    seen = alice.get(path).json()
    assert (seen["limit_usd"], seen["set_by"]) == (5, "operator")
    assert seen["webhook_url"] is None, "its address is the operators' business"
    assert alice.put(path, {"period": "monthly", "limit_usd": 500}).status_code == 403
    assert alice.delete(path).status_code == 403
    set_budget(alice, 500)
    assert room(alice, made)[2] == 5, "a wide one beside it loosens nothing"
    assert alice.get("/api/v1/webhooks").json()["total"] == 0


def test_an_operator_takes_over_what_it_changes(alice: APIClient, operator: APIClient) -> None:
    path = f"/api/v1/budgets/{set_budget(alice, 5)['id']}"
    assert operator.put(path, {"period": "monthly", "limit_usd": 1}).json()["set_by"] == "operator"
    assert alice.put(path, {"period": "monthly", "limit_usd": 5}).status_code == 403


def test_the_webhook_of_what_an_operator_takes_over_is_the_operators(
    alice: APIClient, operator: APIClient, receiver: Receiver
) -> None:
    made = set_budget(alice, 10, webhook_url=receiver.url)
    body = {"period": "monthly", "limit_usd": 1, "webhook_url": receiver.url}
    answer = operator.put(f"/api/v1/budgets/{made['id']}", body)
    assert answer.headers["Cache-Control"] == "no-store", "a secret is in it"
    assert alice.get("/api/v1/webhooks").json()["total"] == 0


def test_somebody_elses_budget_does_not_exist(alice: APIClient, client_for: ClientFor) -> None:
    path = f"/api/v1/budgets/{set_budget(alice, 5)['id']}"
    bob = client_for("bob")
    body = {"period": "monthly", "limit_usd": 500}
    assert [bob.get(path).status_code, bob.put(path, body).status_code, bob.delete(path).status_code] == [404] * 3
    assert bob.get("/api/v1/budgets").json()["total"] == 0
    assert bob.get("/api/v1/budgets?consumer_id=alice").status_code == 403
    assert bob.post("/api/v1/budgets", {**body, "consumer_id": "alice"}).status_code == 403


def test_a_budget_stays_its_consumers(operator: APIClient, client_for: ClientFor) -> None:
    client_for("alice"), client_for("bob")
    path = f"/api/v1/budgets/{set_budget(operator, 5, consumer_id='alice')['id']}"
    answer = operator.put(path, {"consumer_id": "bob", "period": "daily", "limit_usd": 1})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["consumer_id"])


BAD = [
    ({"limit_usd": -1}, "limit_usd"), ({"limit_usd": "NaN"}, "limit_usd"), ({"limit_usd": "Infinity"}, "limit_usd"),
    ({"limit_usd": 1e12}, "limit_usd"), ({"limit_usd": "1e300"}, "limit_usd"), ({"limit_usd": None}, "limit_usd"),
    ({"limit_usd": True}, "limit_usd"), ({"limit_usd": "0.0000001"}, "limit_usd"), ({"limit_usd": [1]}, "limit_usd"),
    ({"period": "weekly"}, "period"), ({"period": None}, "period"), ({"on_limit": "explode"}, "on_limit"),
    ({"thresholds": [0.8, 0.5]}, "thresholds"), ({"thresholds": [0.5, 0.5]}, "thresholds"),
    ({"thresholds": [0]}, "thresholds"), ({"thresholds": [-0.1]}, "thresholds"), ({"thresholds": [1.01]}, "thresholds"),
    ({"thresholds": ["NaN"]}, "thresholds"), ({"thresholds": 0.5}, "thresholds"),
    ({"thresholds": [0.00001]}, "thresholds"),
    ({"thresholds": [n / 100 for n in range(1, 20)]}, "thresholds"),
    ({"currency": "EUR"}, "currency"), ({"limit_eur": 3}, "limit_eur"), ({"spent": 0}, "spent"),
    ({"consumer_id": "nobody"}, "consumer_id"), ({"consumer_id": None}, "consumer_id"),
    ({"webhook_url": "http://example.org/"}, "webhook_url"), ({"webhook_url": "https://10.0.0.1/"}, "webhook_url"),
    ({"webhook_url": "https://[::ffff:127.0.0.1]/"}, "webhook_url"), ({"webhook_url": "nonsense"}, "webhook_url"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "field"), BAD)
def test_bad_input_is_named(operator: APIClient, client_for: ClientFor, wrong: dict[str, Any], field: str) -> None:
    client_for("alice")
    answer = operator.post("/api/v1/budgets", {"consumer_id": "alice", "period": "daily", "limit_usd": 1, **wrong})
    assert answer.status_code == 400, answer.content
    named = {name.partition("[")[0].partition(".")[0] for name in answer.json()["fields"]}
    assert named == {field}
    assert not Budget.objects.exists()


@pytest.mark.parametrize("missing", ["period", "limit_usd", "consumer_id"])
def test_what_is_missing_is_named(operator: APIClient, missing: str) -> None:
    body = {"consumer_id": "ops", "period": "daily", "limit_usd": 1}
    del body[missing]
    answer = operator.post("/api/v1/budgets", body)
    assert (answer.status_code, list(answer.json()["fields"])) == (400, [missing])


def test_not_a_number_in_json_is_refused(alice: APIClient) -> None:
    for word in (b"NaN", b"Infinity", b"-Infinity"):
        body = b'{"period": "daily", "limit_usd": ' + word + b"}"
        answer = alice.generic("POST", "/api/v1/budgets", body, content_type="application/json")
        assert answer.status_code == 400, answer.content


def test_the_largest_budget_is_kept_to_the_micro_dollar(alice: APIClient) -> None:
    made = set_budget(alice, "999999999.999999")
    assert Budget.objects.get().limit == 999_999_999_999_999
    assert Decimal(str(made["limit_usd"])) == Decimal("999999999.999999")


def test_there_is_an_end_to_how_many(alice: APIClient) -> None:
    for _ in range(50):
        set_budget(alice, 1)
    answer = alice.post("/api/v1/budgets", {"period": "daily", "limit_usd": 1})
    assert (answer.status_code, answer.json()["error_type"]) == (409, "too_many")


def test_the_forecast_is_what_the_deadlines_will_have_cost(
    alice: APIClient, engine: Engine, virtual: FakeClock
) -> None:
    made = set_budget(alice, 10, on_limit="alert")
    daily = set_budget(alice, 10, period="daily")
    order(alice, reservation_hours=2)
    engine.run(5)
    assert alice.get(f"/api/v1/budgets/{made['id']}").json()["forecast"] == pytest.approx(0.82, abs=0.001)
    virtual.instant = datetime(2026, 1, 29, 13, 0, tzinfo=UTC)
    assert alice.get(f"/api/v1/budgets/{daily['id']}").json()["forecast"] == pytest.approx(0.82, abs=0.001)


def test_the_forecast_of_a_day_ends_with_the_day(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    virtual.instant = datetime(2026, 1, 29, 23, 0, tzinfo=UTC)
    engine.run(1)
    refresh.refresh("fake")
    daily = set_budget(alice, 10, period="daily")
    order(alice, reservation_hours=10)
    assert daily["forecast"] == 0
    assert alice.get(f"/api/v1/budgets/{daily['id']}").json()["forecast"] == pytest.approx(0.41, abs=0.001)


def test_an_operators_extension_is_held_to_the_budget_too(
    alice: APIClient, operator: APIClient, engine: Engine
) -> None:
    set_budget(operator, 1, consumer_id="alice")
    session = order(alice)
    engine.run(5)
    answer = operator.post(f"/api/v1/sessions/{session['id']}/extend",
                           {"additional_hours": 20, "override": True, "reason": "a long run"})  # fmt: skip
    assert (answer.status_code, answer.json()["error_type"]) == (409, "budget_exceeded")


def test_the_admin_shows_where_each_stands(alice: APIClient, provider: FakeProvider) -> None:
    made = set_budget(alice, 1)
    order(alice)
    staff = Client()
    staff.force_login(User.objects.create_superuser("root", password="irrelevant"))
    page = staff.get("/admin/costs/budget/").content.decode()
    assert "$0.00 spent, $0.4510 reserved, $0.5490 left" in page
    assert "There is room." in staff.get(f"/admin/costs/budget/{made['id']}/change/").content.decode()
    for path in ("alert/", "mail/"):
        assert staff.get(f"/admin/costs/{path}").status_code == 200


# --- Whatever happens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_spent_and_reserved_stay_within_the_limit(
    seed: int, alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    """Creates, extensions, ends, refusals, lost answers and time, by chance; the limit after each step."""
    chance = random.Random(seed)
    made = set_budget(alice, "1.5", on_limit=chance.choice(["block", "stop"]), period=chance.choice(["daily", "total"]))
    budget_row = Budget.objects.get(pk=made["id"])
    taken = 0
    for _ in range(40):
        live = list(Session.objects.filter(status__in=LIVE).values_list("pk", flat=True))
        step = chance.choice(["create", "create", "extend", "done", "wait", "trouble"])
        if step == "create":
            body = {"offer_id": f"fake-{chance.randint(1, 3)}", "reservation_hours": chance.choice([0.1, 0.5, 1, 2]),
                    "auto_retry": chance.random() < 0.5}  # fmt: skip
            taken += alice.post("/api/v1/sessions", body).status_code == 201
        elif step == "extend" and live:
            alice.post(f"/api/v1/sessions/{chance.choice(live)}/extend", {"additional_hours": 0.25})
        elif step == "done" and live:
            alice.post(f"/api/v1/sessions/{chance.choice(live)}/done")
        elif step == "trouble":
            provider.trouble["create"] = [Refused("gone", why=Refusal.OFFER_GONE)]
        virtual.advance(chance.choice([0, 5, 300, 1200]) if step == "wait" else 0)
        engine.run(chance.choice([1, 3, 10]))
        budgets.watch(virtual.now())
        room = budgets.stands(budget_row)
        assert room.remaining >= 0, (step, room)
    assert taken > 1
