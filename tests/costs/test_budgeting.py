"""The pure core of budgets, by examples and by properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costs import budgeting
from costs.budgeting import Commitment, Period, Standing

USD = 1_000_000
HOUR = timedelta(hours=1)
NOON = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)

instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
periods = st.sampled_from(list(Period))
amounts = st.integers(0, 10**12)


def test_a_day_and_a_month_begin_at_midnight_utc() -> None:
    assert budgeting.window(Period.DAILY, NOON) == (
        datetime(2026, 1, 29, tzinfo=UTC), datetime(2026, 1, 30, tzinfo=UTC),
    )  # fmt: skip
    december = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert budgeting.window(Period.MONTHLY, december) == (
        datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC),
    )  # fmt: skip


@given(periods, instants)
def test_each_instant_is_in_one_period_and_the_next_begins_where_it_ends(period: Period, now: datetime) -> None:
    start, end = budgeting.window(period, now)
    assert start <= now < end
    if period is not Period.TOTAL:
        assert budgeting.window(period, end)[0] == end
        assert budgeting.window(period, end - timedelta(microseconds=1)) == (start, end)


@given(periods, instants, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_no_period_is_left_out_between_two_looks(period: Period, since: datetime, later: timedelta) -> None:
    found = list(budgeting.windows(period, since, since + later))
    assert found[0] == budgeting.window(period, since)
    assert found[-1] == budgeting.window(period, since + later)
    assert all(end == start for (_, end), (start, _) in pairwise(found))


def test_a_clock_that_went_back_compares_the_period_it_is_in() -> None:
    assert list(budgeting.windows(Period.DAILY, NOON + timedelta(days=3), NOON)) == [
        budgeting.window(Period.DAILY, NOON)
    ]


def test_the_worst_case_is_a_tenth_above_the_time_until_the_deadline() -> None:
    assert budgeting.worst_case(400_000, 5 * HOUR) == 2_200_000


@given(st.integers(0, 10**10), st.timedeltas(timedelta(0), timedelta(days=31)))
def test_the_worst_case_is_never_below_what_the_time_costs(rate: int, span: timedelta) -> None:
    exact = rate * (span // timedelta(microseconds=1)) * 11
    assert budgeting.worst_case(rate, span) * 10 * 3_600_000_000 >= exact


def test_a_tenth_is_for_the_end_and_never_less_than_it_takes() -> None:
    assert budgeting.worst_case(600_000, timedelta(hours=10)) == 6_600_000
    assert budgeting.worst_case(600_000, timedelta(minutes=30)) == 330_000, "from here on a tenth is enough"
    assert budgeting.worst_case(600_000, timedelta(minutes=1)) == 40_000


def test_only_a_wish_that_may_go_on_is_counted_at_its_upper_price() -> None:
    assert budgeting.dearest(400, 900, may_retry=True) == 900
    assert budgeting.dearest(400, 900, may_retry=False) == 400
    assert budgeting.dearest(400, 300, may_retry=True) == 400, "what it has already is what it costs"
    assert budgeting.dearest(400, None, may_retry=True) == 400


def test_a_wish_that_may_go_on_is_bound_by_the_price_it_names_and_another_by_what_may_drift() -> None:
    assert budgeting.upper_price(400, None, may_retry=True) == 500
    assert budgeting.upper_price(400, 900, may_retry=True) == 900
    assert budgeting.upper_price(400, None, may_retry=False) == 420
    assert budgeting.upper_price(400, 900, may_retry=False) == 420
    assert budgeting.upper_price(400, 410, may_retry=False) == 410


@given(
    st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.timedeltas(timedelta(0), timedelta(days=1))
)
def test_what_is_spent_and_still_burns_is_never_more_than_what_is_held(
    rate: int, burns: int, spent: int, gone: timedelta
) -> None:
    began, hours = datetime(2026, 1, 29, tzinfo=UTC), timedelta(hours=4)
    held = budgeting.worst_now(rate, burns, spent, began, hours, began + gone)
    left = max(timedelta(0), hours + timedelta(minutes=24) - gone)
    assert held >= budgeting.worst_case(rate, hours)
    assert held >= (spent if burns else 0) + burns * (left // timedelta(microseconds=1)) // 3_600_000_000


@given(amounts, amounts, amounts)
def test_spending_what_was_reserved_changes_nothing_else(worst: int, before: int, more: int) -> None:
    """While a session stays within its worst case, spent + reserved stays the same; beyond it nothing is freed."""
    then = before + Commitment(worst, before).reserved
    later = before + more + Commitment(worst, before + more).reserved
    assert later >= then
    if before + more <= worst:
        assert later == then == worst


@given(amounts, amounts, amounts, amounts)
def test_what_fits_keeps_within_the_limit(limit: int, spent: int, reserved: int, asked: int) -> None:
    room = Standing(limit, spent, reserved)
    assert room.fits(asked) == (spent + reserved + asked <= limit)


def test_the_last_micro_dollar_fits_and_the_next_does_not() -> None:
    assert Standing(10 * USD, 6 * USD, 3 * USD).fits(USD)
    assert not Standing(10 * USD, 6 * USD, 3 * USD).fits(USD + 1)


@pytest.mark.parametrize(
    ("spent", "expected"),
    [(0, []), (4_999_999, []), (5_000_000, [5000]), (8_000_001, [5000, 8000]), (10_000_000, [5000, 8000, 10000])],
)
def test_a_threshold_is_crossed_when_it_is_reached(spent: int, expected: list[int]) -> None:
    assert budgeting.crossed([5000, 8000], 10 * USD, spent) == expected


def test_the_limit_counts_as_a_threshold_though_nobody_named_it() -> None:
    assert budgeting.crossed([], 10 * USD, 10 * USD) == [10_000]


@given(st.lists(st.integers(1, 10_000), unique=True), st.integers(1, 10**15), amounts, amounts)
def test_more_spending_never_uncrosses(thresholds: list[int], limit: int, spent: int, more: int) -> None:
    before = budgeting.crossed(thresholds, limit, spent)
    assert before == budgeting.crossed(thresholds, limit, spent + more)[: len(before)]


def test_what_is_ahead_ends_with_the_deadline_or_the_period() -> None:
    rate = 600_000
    assert budgeting.ahead(rate, NOON + 2 * HOUR, NOON + 12 * HOUR, NOON) == 1_200_000
    assert budgeting.ahead(rate, NOON + 24 * HOUR, NOON + 12 * HOUR, NOON) == 7_200_000
    assert budgeting.ahead(rate, NOON - HOUR, NOON + 12 * HOUR, NOON) == 0
