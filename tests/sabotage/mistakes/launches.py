"""Mistakes about creates, and about what they cost."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from costs import budgeting
from providers.base import Refusal, Refused, Unavailable
from providers.http import Client
from providers.tensordock import TensorDock
from providers.vastai import VastAI
from sessions import api, controller, gates, lifecycle, machines, outlets, reconcile
from sessions.lifecycle import State
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around

EITHER = "tests/contract/test_either.py::"
LIFE = "tests/sessions/test_life.py::"
BUDGETS = "tests/costs/test_budgets.py::"


@mistake(EITHER + "test_a_create_is_sent_once_whatever_comes_of_it", "lives a_lost_create_answer")
def a_retry_sends_a_create_again() -> None:
    """A change that got no answer is asked for once more."""

    def send_once(right: Any, client: Client, call: Any) -> Any:
        try:
            return right(client, call)
        except Unavailable:
            return right(client, call)

    around(Client, "send_once", send_once)


@mistake(EITHER + "test_a_create_that_is_not_heard_of_is_no_refusal_and_its_machine_is_found_by_its_label")
def a_silent_create_is_read_as_refused() -> None:
    """A create that got no answer has made nothing."""

    def create(right: Any, *given: Any) -> str:
        try:
            return right(*given)
        except Unavailable as error:
            raise Refused(str(error), why=Refusal.OFFER_GONE) from error

    around(VastAI, "create", create)
    around(TensorDock, "create", create)


@mistake(LIFE + "test_a_create_that_made_nothing_is_given_up_after_the_settle_time")
def no_settle_time() -> None:
    """The next offer is tried as soon as two listings lack what a create may have made."""
    around(machines, "limits_of", lambda right, *given: replace(right(*given), settle=timedelta(0)))


@mistake(LIFE + "test_nothing_is_created_while_the_account_is_not_seen")
def creates_while_blind() -> None:
    """The gates are always open."""
    around(gates, "closed", lambda right, provider, now: "")


@mistake(LIFE + "test_many_unknown_machines_at_once_are_kept_until_an_operator_decides")
def the_brake_stops_no_create() -> None:
    """The gates do not look at the brake."""
    around(lifecycle, "closed_gate", lambda right, account, now: right(replace(account, braked=""), now))


@mistake(LIFE + "test_many_unknown_machines_at_once_are_kept_until_an_operator_decides")
def amnesia_is_not_noticed() -> None:
    """However many machines without a row there are at once, they are orphans."""
    reconcile.AMNESIA_ABOVE = 10**6


@mistake("tests/costs/test_ledger.py::test_a_session_costs_from_its_create_to_its_absence")
def the_bill_counts_from_the_login() -> None:
    """What a machine costs before its verification is not counted."""

    def meter(right: Any, row: Any, at: datetime, parts: Any) -> None:
        if parts is None or row.verified_at is not None:
            right(row, at, parts)

    def move(right: Any, row: Any, to: State, now: datetime, message: str, **fields: Any) -> bool:
        moved = right(row, to, now, message, **fields)
        if moved and to is State.RUNNING:
            controller.meter(row, now, controller.parts_of(row))
        return moved

    around(controller, "meter", meter)
    around(controller, "move", move)


@mistake(
    BUDGETS + "test_what_is_spent_and_reserved_moves_from_one_to_the_other",
    "tests/costs/test_budget_races.py::test_a_hundred_creates_at_once_never_overcommit",
)
def budgets_without_reservations() -> None:
    """Only what is spent counts, not what running sessions may yet cost."""
    around(budgeting, "standing", lambda right, *given: replace(right(*given), reserved=0))


@mistake("tests/costs/test_budget_races.py::test_a_hundred_creates_at_once_never_overcommit")
def budgets_without_the_lock() -> None:
    """The budget is looked at before the transaction that records the wish."""

    def begin(right: Any, session: Any, now: datetime, **named: Any) -> None:
        checks = list(outlets.before_commitment)
        for may in checks:
            may(session, now)
        outlets.before_commitment[:] = []
        try:
            right(session, now, **named)
        finally:
            outlets.before_commitment[:] = checks

    around(controller, "begin", begin)
    api.transaction = SimpleNamespace(atomic=nullcontext)  # type: ignore[attr-defined]
