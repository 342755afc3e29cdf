"""Mistakes about the time: whose clock is believed, and what becomes of what a wrong one wrote."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from providers import clock
from sessions import reconcile, rows, trust
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around

TRUST = "tests/sessions/test_trust.py::"
A_DAY_AHEAD = "lives a_computer_that_boots_with_a_clock_a_day_ahead"


@mistake(TRUST + "test_a_session_does_not_expire_by_a_clock_that_is_an_hour_ahead", A_DAY_AHEAD)
def a_doubtful_clock_is_believed() -> None:
    """Deadlines fall due by a clock that the providers contradict."""
    around(trust, "hold_until", lambda right, provider, now: None)


@mistake(TRUST + "test_a_process_that_begins_with_a_wrong_clock_asks_before_it_ends_anything")
def a_new_process_asks_nobody_for_the_time() -> None:
    """A process that has heard no provider yet takes its clock for right."""
    around(trust, "compare", lambda right, provider, now: None)
    around(
        trust, "hold_until", lambda right, provider, now: right(provider, now) if provider in clock.told else None
    )  # fmt: skip


@mistake(TRUST + "test_what_a_clock_that_was_a_day_ahead_put_to_sleep_is_woken", A_DAY_AHEAD)
def what_a_wrong_clock_put_to_sleep_stays_asleep() -> None:
    """A row that is due in a day is looked at in a day."""
    around(rows, "recall", lambda right, now: None)


@mistake(TRUST + "test_a_machine_that_was_seen_in_the_future_can_be_missed_again")
def what_is_dated_later_than_now_is_believed() -> None:
    """A machine was seen tomorrow, so no listing of today is news."""
    around(reconcile, "_forget_the_future", lambda right, account, rows, now: None)


@mistake("tests/providers/test_clock.py::test_a_jump_ahead_that_a_provider_denies_is_never_followed")
def a_jump_is_followed_whatever_providers_say() -> None:
    """After ten minutes the wall clock is right."""

    def others(right: Any, steady: Any, since: float, monotonic: float) -> list[datetime]:
        return []

    around(clock.SteadyClock, "_others", others)
