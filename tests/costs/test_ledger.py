"""What was used: written down once, whatever is told twice, late or at the same time; and added up exactly."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, transaction
from rest_framework.test import APIClient

from costs import ledger, metering
from costs.days import Days
from costs.ledger import EVER, Which
from costs.metering import GRAINS
from costs.models import UsageInterval
from providers import tag
from providers.base import MachineState, PriceParts, Refusal, Refused, Unavailable
from sessions import outlets
from sessions.models import Instance, Session
from tests.costs import usage
from tests.costs.usage import RATE
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=span) for span in (1, 60, 3600, 86400))
AN_HOUR_OF_THE_CHEAPEST = 410_000  # micro-dollars, of which 10,000 are for the disk


def stretches(row: Instance) -> list[tuple[datetime, datetime | None, int]]:
    rows = UsageInterval.objects.filter(instance=row).order_by("started_at", "id")
    return [(each.started_at, each.ended_at, each.compute + each.storage) for each in rows]


def cost_of(session: dict[str, Any], now: datetime) -> int:
    [found] = ledger.costs_of([UUID(session["id"])], now).values()
    return found


# --- Writing ----------------------------------------------------------------------------------------------------


def test_the_same_fact_twice_is_one_interval(virtual: FakeClock) -> None:
    row = usage.machine()
    for later in (0, 5, -5):
        ledger.record(row, NOON + later * SECOND, RATE)
    assert stretches(row) == [(NOON, None, RATE.total)]


def test_another_price_opens_another_interval_without_a_gap(virtual: FakeClock) -> None:
    row = usage.machine()
    ledger.record(row, NOON, RATE)
    ledger.record(row, NOON + HOUR, replace(RATE, gpu=720_000))
    assert stretches(row) == [(NOON, NOON + HOUR, 396_000), (NOON + HOUR, None, 756_000)]


def test_the_same_price_in_other_parts_is_another_interval(virtual: FakeClock) -> None:
    row = usage.machine()
    ledger.record(row, NOON, PriceParts(gpu=1, storage=2))
    ledger.record(row, NOON + HOUR, PriceParts(gpu=2, storage=1))
    assert UsageInterval.objects.count() == 2


def test_a_fact_from_before_the_interval_changes_nothing_before_it(virtual: FakeClock) -> None:
    row = usage.machine()
    ledger.record(row, NOON, RATE)
    ledger.record(row, NOON - HOUR, replace(RATE, gpu=720_000))
    assert stretches(row) == [(NOON, NOON, 396_000), (NOON, None, 756_000)]


def test_an_end_twice_is_the_first_end(virtual: FakeClock) -> None:
    row = usage.used(NOON - HOUR, NOON)
    virtual.advance(60)
    ledger.record(row, virtual.now(), None)
    ledger.record(row, NOON - 2 * HOUR, None)
    assert stretches(row) == [(NOON - HOUR, NOON, 396_000)]


def test_what_comes_back_goes_on_where_it_stopped(virtual: FakeClock) -> None:
    row = usage.used(NOON - HOUR, NOON)
    ledger.record(row, NOON - 2 * HOUR, RATE)
    assert stretches(row)[1] == (NOON, None, 396_000), "no overlap, however early the fact is"


def test_cheaper_counts_from_now_on_and_dearer_from_when_it_was_so(virtual: FakeClock) -> None:
    row = usage.machine()
    ledger.record(row, NOON, RATE)
    virtual.advance(600)
    ledger.record(row, NOON + 5 * MINUTE, replace(RATE, gpu=0))
    assert stretches(row)[0] == (NOON, NOON + 10 * MINUTE, 396_000)
    virtual.advance(600)
    ledger.record(row, NOON + 15 * MINUTE, RATE)
    assert stretches(row)[1] == (NOON + 10 * MINUTE, NOON + 15 * MINUTE, 36_000)


def test_a_machine_has_one_open_interval(virtual: FakeClock) -> None:
    row = usage.used(NOON, None)
    open_one = UsageInterval.objects.get(instance=row)
    open_one.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        open_one.save(force_insert=True)


def test_usage_falls_with_the_transaction_of_its_fact(virtual: FakeClock) -> None:
    row = usage.machine()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        ledger.record(row, NOON, RATE)
        raise ZeroDivisionError
    assert not UsageInterval.objects.exists()


def test_a_closed_interval_knows_its_cost_exactly(virtual: FakeClock) -> None:
    usage.used(NOON - 1234567 * timedelta(microseconds=1), NOON, parts=PriceParts(gpu=999_999_937, storage=7))
    row = UsageInterval.objects.get()
    assert row.compute_micros * GRAINS + row.compute_grains == 999_999_937 * 1_234_567
    assert row.storage_micros * GRAINS + row.storage_grains == 7 * 1_234_567
    assert 0 <= row.compute_grains < GRAINS


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_told_in_whatever_order_no_sum_ever_falls(seed: int, virtual: FakeClock) -> None:
    """Ends, prices and returns, some of them late, some from a clock that is ahead."""
    chance = random.Random(seed)
    row, told = usage.machine(usage.session()), [0]
    for _ in range(60):
        virtual.advance(chance.choice([0, 0.000001, 1, 59, 3600]))
        at = virtual.now() + chance.choice([-7200, -60, -1, 0, 0, 0, 2]) * SECOND
        rate = chance.choice([None, RATE, replace(RATE, gpu=0), replace(RATE, gpu=999_999)])
        ledger.record(row, at, rate)
        told.append(ledger.costs_of([row.session_id], virtual.now())[row.session_id])
    assert told == sorted(told)
    for (_, end, _), (start, _, _) in pairwise(stretches(row)):
        assert end is not None and end <= start
    assert sum(end is None for _, end, _ in stretches(row)) <= 1


# --- Whole lives ---------------------------------------------------------------------------------------------------


def test_a_session_costs_from_its_create_to_its_absence(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    launched = Instance.objects.get().launched_at
    virtual.instant = launched + 59 * MINUTE
    assert cost_of(session, virtual.now()) == round(AN_HOUR_OF_THE_CHEAPEST * 59 / 60)
    assert shown(alice, session)["cost_so_far"] == pytest.approx(0.41 * 59 / 60, abs=1e-6)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(120)
    [(start, end, rate)] = stretches(Instance.objects.get())
    assert (start, rate) == (launched, AN_HOUR_OF_THE_CHEAPEST)
    assert end is not None and timedelta(0) < end - (launched + 59 * MINUTE) < MINUTE
    final = cost_of(session, virtual.now())
    virtual.advance(86400)
    assert cost_of(session, virtual.now()) == final == round(rate * (end - start) / HOUR)


def test_one_second_costs_one_second(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    session = order(alice)
    engine.settle()
    launched = Instance.objects.get().launched_at
    assert cost_of(session, launched) == 0
    assert cost_of(session, launched + SECOND) == round(AN_HOUR_OF_THE_CHEAPEST / 3600)


@pytest.mark.parametrize("why", [Refusal.OFFER_GONE, Refusal.NO_MONEY, Refusal.INVALID])
def test_a_refused_create_costs_nothing(
    why: Refusal, alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    provider.trouble["create"] = [Refused("no", why=why)]
    session = order(alice)
    engine.run(120)
    assert shown(alice, session)["status"] == "failed"
    assert cost_of(session, virtual.now()) == 0
    assert not UsageInterval.objects.exists()


def test_a_create_that_made_nothing_costs_nothing(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    provider.trouble["create"] = [Unavailable("no answer")]
    session = order(alice)
    engine.run(800)
    assert shown(alice, session)["status"] == "failed"
    assert cost_of(session, virtual.now()) == 0


def test_a_create_whose_answer_was_lost_costs_from_the_create(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    def lost(spec: Any) -> str:
        provider.add(spec.label)
        raise Unavailable("the connection broke")

    provider.create = lost  # type: ignore[method-assign]
    order(alice)
    engine.run(30)
    row = Instance.objects.get()
    assert stretches(row)[0][0] == row.launched_at


def test_a_refusal_that_made_a_machine_costs_what_it_cost(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    def refuse(spec: Any) -> str:
        raise Refused("made, not started", why=Refusal.OFFER_GONE, machine_id=provider.add(spec.label))

    provider.create = refuse  # type: ignore[method-assign]
    session = order(alice)
    engine.run(120)
    assert shown(alice, session)["status"] == "failed"
    assert cost_of(session, virtual.now()) > 0


def test_an_extension_costs_on_at_the_same_rate(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    session = order(alice)
    engine.run(5)
    alice.post(f"/api/v1/sessions/{session['id']}/extend", {"additional_hours": 2})
    launched = Instance.objects.get().launched_at
    virtual.instant = launched + 3 * HOUR - MINUTE
    engine.settle()
    assert cost_of(session, launched + 2 * HOUR) == 2 * AN_HOUR_OF_THE_CHEAPEST
    assert len(stretches(Instance.objects.get())) == 1


def reprice(provider: FakeProvider, **changes: Any) -> None:
    provider.listed = {name: replace(machine, **changes) for name, machine in provider.listed.items()}


def test_a_price_change_is_billed_from_the_listing_that_shows_it(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(5)
    virtual.advance(3600)
    reprice(provider, price=PriceParts(gpu=800_000, storage=10_000))
    engine.run(1)
    row = Instance.objects.get()
    (start, cut, old), (again, _, new) = stretches(row)
    assert cut is not None
    assert (old, new, again) == (AN_HOUR_OF_THE_CHEAPEST, 810_000, cut)
    expected = round((old * (cut - start) + new * HOUR) / HOUR)
    assert cost_of(session, cut + HOUR) == expected


@pytest.mark.parametrize(("bills_stopped", "expected"), [(True, 410_000), (False, 10_000)])
def test_a_stopped_machine_costs_what_its_provider_bills_then(
    bills_stopped: bool, expected: int, alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    provider.traits = replace(provider.traits, bills_stopped=bills_stopped)
    order(alice)
    engine.run(5)
    provider.destroy = lambda machine_id: None  # type: ignore[method-assign] # it stays, stopped
    reprice(provider, price=PriceParts(gpu=400_000, storage=10_000), state=MachineState.DOWN)
    virtual.advance(400)
    engine.run(400)
    [*_, (_, end, rate)] = stretches(Instance.objects.get())
    assert (end, rate) == (None, expected)


def test_a_machine_that_vanished_costs_until_it_was_missed(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    session = order(alice)
    engine.run(5)
    provider.listed.clear()
    virtual.advance(400)
    engine.run(300)
    assert shown(alice, session)["status"] == "failed"
    row = Instance.objects.get()
    [(_, end, _)] = stretches(row)
    assert end is not None
    assert row.ended_at is not None and end < row.ended_at, "what it is not seen for is not billed"


def test_a_machine_that_comes_back_was_there_all_the_time(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    session = order(alice)
    engine.run(5)
    kept = dict(provider.listed)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    before = cost_of(session, virtual.now())
    provider.listed.update(kept)
    virtual.advance(3600)
    engine.run(400)
    (_, gone, _), (back, end, _) = stretches(Instance.objects.get())
    assert gone == back
    assert end is not None
    assert cost_of(session, virtual.now()) - before == pytest.approx(AN_HOUR_OF_THE_CHEAPEST, rel=0.1)


def test_every_machine_of_a_session_counts(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    made = iter([Refused("made, not started", why=Refusal.OFFER_GONE)])
    create = provider.create

    def first_refuse(spec: Any) -> str:
        for refusal in made:
            virtual.advance(1)
            refusal.machine_id = provider.add(spec.label)
            raise refusal
        return create(spec)

    provider.create = first_refuse  # type: ignore[method-assign]
    session = order(alice, auto_retry=True)
    engine.run(120)
    assert shown(alice, session)["status"] == "running"
    now = virtual.now()
    each = ledger.amounts(Which(session=Session.objects.get().pk), EVER, now, now, by=("instance",))
    assert len(each) == 2
    assert all(amount.total > 0 for amount in each.values())
    assert cost_of(session, now) == metering.micros(sum(amount.total for amount in each.values()))


def test_an_orphan_costs_the_deployment_and_no_consumer(
    engine: Engine, provider: FakeProvider, virtual: FakeClock, settings: Any
) -> None:
    label = tag.mint(settings.DEPLOYMENT_ID, virtual.now() + 5 * HOUR, settings.TAG_KEYS[0])
    provider.add(label, price=PriceParts(gpu=400_000), started_at=NOON - HOUR)
    engine.run(700)
    row = UsageInterval.objects.get()
    assert (row.consumer, row.session, row.started_at) == ("", None, NOON - HOUR)
    now = virtual.now()
    assert ledger.cost(Which(consumer=""), EVER, now, now) == ledger.cost(Which(), EVER, now, now) > 400_000


def test_the_hooks_are_connected_once() -> None:
    ledger.connect()
    assert outlets.metered.count(ledger.record) == 1
    assert outlets.costs_of is ledger.costs_of


# --- Adding up -------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(virtual: FakeClock) -> datetime:
    """Two months of usage with odd lengths and rates, some of it across midnights, some not over."""
    chance = random.Random(4)
    start = datetime(2026, 1, 1, tzinfo=NOON.tzinfo)
    virtual.instant = start + 59 * DAY
    for number in range(120):
        began = start + chance.random() * 59 * DAY
        end = None if number % 10 == 0 else began + chance.random() * chance.choice([MINUTE, HOUR, 3 * DAY])
        usage.used(
            began, min(end, virtual.instant) if end else None, consumer=chance.choice(["alice", "bob", ""]),
            provider=chance.choice(["fake", "other"]), parts=PriceParts(gpu=chance.randint(1, 999_999), storage=7_777),
        )  # fmt: skip
    return start


def test_days_add_up_to_their_month_to_the_last_digit(crowd: datetime, virtual: FakeClock) -> None:
    now = virtual.now()
    for which in (Which(), Which(consumer="alice"), Which(provider="other", consumer="bob")):
        days = [ledger.cost(which, crowd + day * DAY, crowd + (day + 1) * DAY, now) for day in range(59)]
        january, february = (
            ledger.cost(which, since, until, now)
            for since, until in ((crowd, crowd + 31 * DAY), (crowd + 31 * DAY, crowd + 59 * DAY))
        )
        assert (sum(days[:31]), sum(days[31:])) == (january, february)
        assert january + february == ledger.cost(which, EVER, now, now)


def test_the_database_adds_up_what_one_by_one_makes(crowd: datetime, virtual: FakeClock) -> None:
    """Against a plain loop over every row, for windows that cut."""
    chance = random.Random(5)
    now = virtual.now()
    for _ in range(20):
        since, until = sorted(crowd + chance.random() * 59 * DAY for _ in range(2))
        expected = sum(
            (row.compute + row.storage)
            * max(0, (min(row.ended_at or now, until) - max(row.started_at, since)) // timedelta(microseconds=1))
            for row in UsageInterval.objects.all()
        )
        assert ledger.used(Which(), since, until, now).total == expected


def test_groups_add_up_to_the_whole(crowd: datetime, virtual: FakeClock) -> None:
    now = virtual.now()
    groups = ledger.amounts(Which(), crowd, now, now, by=("consumer", "provider"))
    assert len(groups) == 6
    assert sum(group.total for group in groups.values()) == ledger.used(Which(), crowd, now, now).total


def test_a_series_is_what_its_parts_are_alone(crowd: datetime, virtual: FakeClock) -> None:
    now = virtual.now()
    for which in (Which(), Which(consumer="alice", provider="fake"), Which(consumer="")):
        for days in (Days(date(2026, 1, 1), date(2026, 3, 9)), Days(date(2026, 1, 20), date(2026, 2, 10))):
            for slices in (list(days.each_day()), list(days.each_month())):
                found = ledger.series(which, slices, now)
                alone = [ledger.cost(which, each.since, each.until, now) for each in slices]
                assert [each.cost for each in found] == alone
                hours = ledger.used(which, days.since, days.until, now).microseconds
                assert sum(each.microseconds for each in found) == hours
    assert ledger.series(Which(), [], now) == []


def test_nothing_is_spent_in_the_future(crowd: datetime, virtual: FakeClock) -> None:
    now = virtual.now()
    assert ledger.cost(Which(), now + DAY, now + 2 * DAY, now) == 0
    assert ledger.cost(Which(), now - DAY, now + DAY, now) == ledger.cost(Which(), now - DAY, now, now)


def test_what_is_spent_never_falls_while_time_goes_on(crowd: datetime, virtual: FakeClock) -> None:
    told = []
    for _ in range(50):
        virtual.advance(0.7)
        told.append(ledger.spent("alice", crowd + 31 * DAY, crowd + 70 * DAY, virtual.now()))
    assert told == sorted(told)
    assert told[-1] > told[0]


def test_the_burn_is_of_what_is_open(virtual: FakeClock) -> None:
    usage.used(NOON - HOUR, None)
    usage.used(NOON - HOUR, None, consumer="bob")
    usage.used(NOON - HOUR, NOON)
    assert ledger.burn(NOON) == 2 * RATE.total
    assert ledger.burn(NOON, consumer="bob") == RATE.total


def test_costs_of_many_sessions_take_two_questions(virtual: FakeClock, django_assert_num_queries: Any) -> None:
    rows = [usage.used(NOON - HOUR, None if number % 2 else NOON) for number in range(20)]
    sessions = [row.session_id for row in rows]
    with django_assert_num_queries(2):
        found = ledger.costs_of([*sessions, usage.UNKNOWN], NOON)
    assert found == {**dict.fromkeys(sessions, RATE.total), usage.UNKNOWN: 0}
