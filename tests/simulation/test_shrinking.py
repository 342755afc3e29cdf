"""A failure is made small, whatever it takes to fail."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.simulation import random_life
from tests.simulation.shrinking import shrink
from tests.simulation.story import Ask, Sleep, Step, Story


def always() -> bool:
    return True


def at_most(tries: int) -> Callable[[], bool]:
    left = itertools.count(tries, -1)
    return lambda: next(left) > 0


@given(st.lists(st.integers(0, 50), unique=True, min_size=1), st.data())
def test_what_it_takes_is_kept_and_nothing_else(steps: list[int], data: st.DataObject) -> None:
    needed = set(data.draw(st.lists(st.sampled_from(steps), min_size=1, unique=True)))
    found = shrink(steps, lambda some: needed <= set(some), always)
    assert set(found) == needed
    assert found == sorted(found, key=steps.index)


@given(st.lists(st.integers(0, 9), unique=True, min_size=1), st.sets(st.frozensets(st.integers(0, 9))))
def test_whatever_is_found_fails_and_less_by_one_does_not(steps: list[int], failing: set[frozenset[int]]) -> None:
    def fails(some: Sequence[int]) -> bool:
        return frozenset(some) in failing or list(some) == steps

    found = shrink(steps, fails, always)
    assert fails(found)
    for number in range(len(found)):
        less = [*found[:number], *found[number + 1 :]]
        assert not less or not fails(less)


def test_it_ends_when_it_may_not_go_on() -> None:
    tried: list[Sequence[int]] = []

    def fails(some: Sequence[int]) -> bool:
        tried.append(some)
        return False

    assert shrink(range(100), fails, at_most(7)) == list(range(100))
    assert len(tried) == 7


def refused(story: Story) -> list[Step]:
    """What is done in a life in which every wish is refused."""
    done: list[Step] = []
    answer: Any = None
    with contextlib.suppress(StopIteration):
        while True:
            step = story.send(answer)
            answer = (409, {}) if isinstance(step, Ask) else None
            done.append(step)
    return done


def test_a_life_can_be_lived_in_part_and_each_step_stays_what_it_was() -> None:
    numbers = random_life.numbers(3, 6)
    assert numbers == list(range(1, len(numbers) + 1))
    whole = refused(random_life.scenario(3, 6).story())
    part = refused(random_life.scenario(3, 6, keep=numbers[1::2]).story())
    wishes = [step for step in part if isinstance(step, Ask)]
    assert wishes
    assert all(wish in whole for wish in wishes)
    assert sum(isinstance(step, Sleep) for step in part) == len(numbers) // 2
