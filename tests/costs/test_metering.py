"""What machines cost, by properties: whatever is split, cut or added up, no micro-dollar is lost or made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from costs import metering
from costs.metering import GRAINS, Amount, Rates

START = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = 366 * 86400 * 10**6

instants = st.integers(0, YEAR).map(lambda after: START + timedelta(microseconds=after))
rates = st.builds(Rates, compute=st.integers(0, 10**9), storage=st.integers(0, 10**7))
intervals = st.tuples(instants, instants, rates).map(lambda drawn: (*sorted(drawn[:2]), drawn[2]))
lives = st.lists(intervals, max_size=8)
cuts = st.lists(instants, min_size=2, max_size=40).map(sorted)
grains = st.integers(0, 10**24)


def cost(life: list[tuple[datetime, datetime, Rates]], since: datetime, until: datetime) -> Amount:
    return metering.total(metering.within(start, end, rate, since, until) for start, end, rate in life)


@given(interval=intervals, at=cuts)
def test_splitting_an_interval_anywhere_changes_no_sum(
    interval: tuple[datetime, datetime, Rates], at: list[datetime]
) -> None:
    start, end, rate = interval
    edges = [start, *(moment for moment in at if start < moment < end), end]
    pieces = metering.total(metering.within(since, until, rate) for since, until in pairwise(edges))
    assert pieces == metering.within(start, end, rate)


@given(life=lives, at=cuts)
def test_windows_that_follow_each_other_add_up_to_the_whole(
    life: list[tuple[datetime, datetime, Rates]], at: list[datetime]
) -> None:
    parts = [cost(life, since, until) for since, until in pairwise(at)]
    assert metering.total(parts) == cost(life, at[0], at[-1])


@given(life=lives, at=cuts)
def test_a_cost_never_decreases(life: list[tuple[datetime, datetime, Rates]], at: list[datetime]) -> None:
    shown = [metering.micros(cost(life, START, until).total) for until in at]
    assert shown == sorted(shown)


@given(interval=intervals, since=instants, until=instants)
def test_a_window_costs_its_rate_times_its_time(
    interval: tuple[datetime, datetime, Rates], since: datetime, until: datetime
) -> None:
    start, end, rate = interval
    found = metering.within(start, end, rate, since, until)
    span = max(timedelta(0), min(end, until) - max(start, since))
    seconds = Fraction(span // timedelta(microseconds=1), 10**6)
    assert Fraction(found.compute, GRAINS) == rate.compute * seconds / 3600
    assert Fraction(found.storage, GRAINS) == rate.storage * seconds / 3600
    assert found.microseconds == seconds * 10**6


@given(grains=grains)
def test_rounding_is_half_even(grains: int) -> None:
    assert metering.micros(grains) == round(Fraction(grains, GRAINS))


def test_a_half_goes_to_the_even_neighbour() -> None:
    half = GRAINS // 2
    assert [metering.micros(part) for part in (half, GRAINS + half, 2 * GRAINS + half)] == [0, 2, 2]
    assert metering.micros(half + 1) == 1


@given(parts=st.lists(grains, max_size=40), before=grains)
def test_shares_add_up_to_the_last_digit(parts: list[int], before: int) -> None:
    shares = metering.apportion(parts, before)
    assert sum(shares) == metering.micros(before + sum(parts)) - metering.micros(before)
    assert all(abs(share * GRAINS - part) < GRAINS for share, part in zip(shares, parts, strict=True))
    assert all(share >= 0 for share in shares)


@given(parts=st.lists(grains, max_size=31))
def test_a_day_costs_the_same_alone_as_in_its_month(parts: list[int]) -> None:
    alone = [metering.apportion([part], sum(parts[:day]))[0] for day, part in enumerate(parts)]
    assert alone == metering.apportion(parts)


def test_a_second_and_an_hour_at_40_cents() -> None:
    rate = Rates(compute=400_000, storage=10_000)
    second = metering.within(START, START + timedelta(seconds=1), rate)
    assert metering.apportion([second.compute, second.storage]) == [111, 3]
    assert metering.micros(metering.within(START, START + timedelta(hours=1), rate).total) == 410_000


def test_ten_minutes_across_the_hour_cost_ten_minutes() -> None:
    start = START + timedelta(minutes=55)
    assert metering.micros(metering.within(start, start + timedelta(minutes=10), Rates(600_000)).total) == 100_000


def test_what_ends_before_it_begins_costs_nothing() -> None:
    assert metering.within(START, START - timedelta(hours=1), Rates(10**6)) == metering.NOTHING
