"""The shapes of the page about money."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from costs import pictures
from costs.pictures import BOTTOM, COLOURS, HEIGHT, LEFT, OTHERS, RIGHT, TOP, WIDTH

FIRST = date(2026, 2, 1)
MONTH = [FIRST + timedelta(days=number) for number in range(28)]
DOLLAR = 1_000_000

amounts = st.dictionaries(
    st.tuples(st.sampled_from(MONTH), st.sampled_from([f"name{number}" for number in range(12)])),
    st.integers(0, 10**12),
)


@given(amounts)
def test_everything_lies_within_the_drawing_and_nothing_on_anything_else(spent: dict[tuple[date, str], int]) -> None:
    chart = pictures.stacked(MONTH, spent)
    for block in chart.blocks:
        assert block.x >= LEFT and block.x + block.width <= WIDTH - RIGHT
        assert block.y >= TOP - 0.02 and block.y + block.height <= HEIGHT - BOTTOM + 0.02
    for day in MONTH:
        column = [block for block in chart.blocks if block.day == day]
        floor = HEIGHT - BOTTOM
        for block in column:
            assert abs(block.y + block.height - floor) < 0.03
            floor = block.y


@given(amounts)
def test_heights_are_to_each_other_as_what_was_spent(spent: dict[tuple[date, str], int]) -> None:
    chart = pictures.stacked(MONTH, spent)
    drawn = {day: sum(block.height for block in chart.blocks if block.day == day) for day in MONTH}
    sums = {day: sum(amount for (on, _), amount in spent.items() if on == day) for day in MONTH}
    most = max(sums.values(), default=0)
    for day in MONTH:
        if most and sums[day]:
            assert abs(drawn[day] / max(drawn.values()) - sums[day] / most) < 0.01


@given(amounts)
def test_no_more_names_than_colours_and_nothing_gets_lost(spent: dict[tuple[date, str], int]) -> None:
    shown, names = pictures.few(spent)
    assert len(names) <= COLOURS
    assert sum(shown.values()) == sum(spent.values())


def test_the_smallest_become_the_others() -> None:
    spent = {(FIRST, f"n{number}"): (20 - number) * DOLLAR for number in range(COLOURS + 2)}
    shown, names = pictures.few(spent)
    assert names == ["n0", "n1", "n2", "n3", "n4", "n5", OTHERS]
    assert shown[FIRST, OTHERS] == (14 + 13 + 12) * DOLLAR


def test_a_name_has_one_colour_and_the_largest_the_first() -> None:
    chart = pictures.stacked(MONTH, {(FIRST, "small"): 1, (FIRST, "large"): 5, (MONTH[3], "small"): 2})
    assert chart.names == ["large", "small"]
    assert {(block.name, block.colour) for block in chart.blocks} == {("large", 0), ("small", 1)}


def test_the_scale_is_of_round_amounts() -> None:
    assert [pictures.scale_step(most) for most in (0, 40_000, 40_001, 3 * DOLLAR, 88 * DOLLAR, 4000 * DOLLAR)] == [
        10_000, 10_000, 20_000, DOLLAR, 50 * DOLLAR, 1000 * DOLLAR,
    ]  # fmt: skip
    chart = pictures.stacked(MONTH, {(FIRST, "a"): 88 * DOLLAR})
    assert [mark.text for mark in chart.scale] == ["$0", "$50", "$100"]
    assert [mark.text for mark in pictures.stacked(MONTH, {(FIRST, "a"): 30_000}).scale] == [
        "$0.00", "$0.01", "$0.02", "$0.03",
    ]  # fmt: skip


def test_a_month_without_anything() -> None:
    chart = pictures.stacked(MONTH, {})
    assert not chart.blocks and not chart.names
    assert [mark.text for mark in chart.calendar] == ["1", "5", "10", "15", "20", "25"]


def test_a_budgets_bar() -> None:
    bar = pictures.bar(100 * DOLLAR, 60 * DOLLAR, 25 * DOLLAR, [5_000, 8_000, 10_000])
    assert (bar.spent, bar.reserved, bar.thresholds, bar.percent, bar.is_over) == (60, 25, [50, 80], 60, False)


def test_a_bar_never_leaves_its_place() -> None:
    over = pictures.bar(100 * DOLLAR, 279 * DOLLAR, 25 * DOLLAR, [])
    assert (over.spent, over.reserved, over.percent, over.is_over) == (100, 0, 279, True)
    reserved = pictures.bar(100 * DOLLAR, 90 * DOLLAR, 25 * DOLLAR, [])
    assert (reserved.spent, reserved.reserved, reserved.is_over) == (90, 10, False)
    assert pictures.bar(0, 0, 0, []).is_over
