"""The clock never goes back, and does not believe every jump."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers.clock import SteadyClock
from tests.fakes import NOON


class Wall:
    """A wall clock that is set by hand, beside a monotonic one that only runs."""

    def __init__(self) -> None:
        self.told, self.ran = NOON, 0.0

    def now(self) -> object:
        return self.told

    def monotonic(self) -> float:
        return self.ran

    def sleep(self, seconds: float) -> None:
        self.run(seconds)

    def run(self, seconds: float) -> None:
        self.told += timedelta(seconds=seconds)
        self.ran += seconds

    def set(self, **by: float) -> None:
        self.told += timedelta(**by)


@pytest.fixture
def wall() -> Wall:
    return Wall()


def test_it_follows_a_wall_clock_that_drifts(wall: Wall) -> None:
    steady = SteadyClock(wall)  # type: ignore[arg-type]
    for _ in range(100):
        wall.run(60)
        wall.set(seconds=0.5)
    assert abs(steady.now() - wall.told) < timedelta(seconds=51)
    assert steady.now() >= NOON + timedelta(minutes=100)


@pytest.mark.parametrize("by", [{"minutes": -1}, {"hours": -1}, {"hours": -12}, {"days": -1}])
def test_a_clock_that_is_set_back_is_waited_for_and_time_runs_on(wall: Wall, by: dict[str, float]) -> None:
    steady = SteadyClock(wall)  # type: ignore[arg-type]
    wall.run(3600)
    before = steady.now()
    wall.set(**by)
    assert steady.now() == before
    wall.run(1800)
    assert steady.now() == before + timedelta(minutes=30)


@pytest.mark.parametrize("by", [{"minutes": 1}, {"hours": 1}, {"days": 1}])
def test_a_jump_ahead_is_not_believed_for_ten_minutes(wall: Wall, by: dict[str, float]) -> None:
    steady = SteadyClock(wall)  # type: ignore[arg-type]
    wall.set(**by)
    for _ in range(9):
        assert steady.now() < NOON + timedelta(minutes=10)
        wall.run(60)
    wall.run(90)
    assert steady.now() == wall.told


def test_a_jump_that_is_taken_back_in_time_has_changed_nothing(wall: Wall) -> None:
    steady = SteadyClock(wall)  # type: ignore[arg-type]
    wall.set(days=1)
    wall.run(300)
    assert steady.now() == NOON + timedelta(minutes=5)
    wall.set(days=-1)
    wall.run(3600)
    assert steady.now() == NOON + timedelta(minutes=65)
