"""Money, times and tables, as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gpushopper.cli import show

NOON = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42, "42 s"), (60, "1 min"), (185, "3 min 5 s"), (3600, "1 h"), (3660, "1 h 1 min"),
     (6840, "1 h 54 min"), (3605, "1 h"), (90000, "1 d 1 h"), (86400, "1 d"), (59.7, "1 min")],
)  # fmt: skip
def test_a_span_has_two_units_at_most(seconds: float, text: str) -> None:
    assert show.span(timedelta(seconds=seconds)) == text


def test_times_are_relative_to_now() -> None:
    assert show.relative("2026-01-29T13:54:00Z", NOON) == "in 1 h 54 min"
    assert show.relative("2026-01-29T11:59:18Z", NOON) == "42 s ago"
    assert show.relative("2026-01-29T12:00:00Z", NOON) == "now"
    assert show.relative(None, NOON) == "–"


def test_money_has_four_places() -> None:
    assert show.money(0.4) == "0.4000"
    assert show.money(12.34567) == "12.3457"
    assert show.money(0) == "0.0000"
    assert show.money(None) == "–"


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert show.plain("a\x1b[2Jb\x07\u202ec\n") == "a[2Jbc\n"
