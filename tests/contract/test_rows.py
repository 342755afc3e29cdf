"""Nothing that is known to go wrong is without a test."""

from __future__ import annotations

from providers.sandbox.weather import SWITCHES
from tests.contract import rows, test_either, test_tensordock, test_vastai

MODULES = (test_either, test_tensordock, test_vastai)


def test_every_known_failure_has_a_test() -> None:
    assert set(rows.SHOWN) == rows.ALL


def test_every_test_that_is_named_is_one_that_runs() -> None:
    there = {f"{module.__name__}.{name}" for module in MODULES for name in vars(module) if name.startswith("test_")}
    assert {name for names in rows.SHOWN.values() for name in names} <= there


def test_the_weather_speaks_of_no_failure_that_is_not_known() -> None:
    assert {row for told, _ in SWITCHES.values() for row in told.split()} <= rows.ALL
