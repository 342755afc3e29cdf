"""The clock never goes back, and does not believe every jump."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers.clock import SteadyClock, Told
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


# --- What providers say of a jump -----------------------------------------------------------------------


@pytest.fixture
def others() -> dict[str, Told]:
    return {}


@pytest.fixture
def steady(wall: Wall, others: dict[str, Told]) -> SteadyClock:
    return SteadyClock(wall, others)  # type: ignore[arg-type]


def tell(others: dict[str, Told], wall: Wall, *, name: str = "vastai", **off: float) -> None:
    """A provider answers; its clock runs by the monotonic one, as the true time does."""
    others[name] = Told(NOON + timedelta(seconds=wall.ran) + timedelta(**off), wall.ran)


def test_a_jump_ahead_that_a_provider_confirms_is_followed_at_once(
    wall: Wall, steady: SteadyClock, others: dict[str, Told]
) -> None:
    """A computer that slept: its monotonic clock stood still, and deadlines are due."""
    wall.set(hours=8)
    assert steady.now() == NOON
    tell(others, wall, hours=8)
    assert steady.now() == NOON + timedelta(hours=8)


def test_a_jump_ahead_that_a_provider_denies_is_never_followed(
    wall: Wall, steady: SteadyClock, others: dict[str, Told]
) -> None:
    wall.set(days=1)
    for _ in range(60):
        steady.now()
        wall.run(60)
        tell(others, wall)
    assert steady.now() == NOON + timedelta(hours=1)


def test_what_was_said_before_a_jump_says_nothing_of_it(
    wall: Wall, steady: SteadyClock, others: dict[str, Told]
) -> None:
    tell(others, wall)
    wall.run(1)
    wall.set(hours=8)
    steady.now()
    wall.run(601)
    assert steady.now() == wall.told


def test_a_clock_that_was_wrong_from_the_beginning_is_set_right(
    wall: Wall, steady: SteadyClock, others: dict[str, Told]
) -> None:
    """A computer boots with a clock a day ahead; NTP sets it right when the service already runs."""
    tell(others, wall, days=-1)
    assert steady.now() == NOON
    wall.run(10)
    wall.set(days=-1)
    assert steady.now() == NOON + timedelta(seconds=10)
    tell(others, wall, days=-1)
    assert steady.now() == NOON + timedelta(seconds=10) - timedelta(days=1)


def test_a_clock_that_is_set_back_wrongly_is_not_followed(
    wall: Wall, steady: SteadyClock, others: dict[str, Told]
) -> None:
    wall.set(days=-1)
    steady.now()
    tell(others, wall)
    wall.run(3600)
    assert steady.now() == NOON + timedelta(hours=1)


def test_a_provider_that_tells_no_time_is_no_witness(wall: Wall, steady: SteadyClock, others: dict[str, Told]) -> None:
    wall.set(days=1)
    steady.now()
    others["vastai"] = Told(None, wall.ran)
    wall.run(601)
    assert steady.now() == wall.told
