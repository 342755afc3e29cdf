"""Mistakes about the ends of machines: an end that is forgotten, given up, or taken for proven."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sessions import controller, lifecycle, machines
from sessions.lifecycle import State
from sessions.models import Event, Instance
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around

LIFE = "tests/sessions/test_life.py::"
LIFECYCLE = "tests/sessions/test_lifecycle.py::"
ENGINE = "tests/sessions/test_engine.py::"


@mistake(ENGINE + "test_a_destroy_that_failed_forgets_nothing", "lives plain_life --fault 'a destroy answered 500'")
def a_failed_destroy_erases_the_id() -> None:
    """After a destroy that failed nobody knows which machine it was."""

    def ask(right: Any, row: Instance, *given: Any) -> None:
        right(row, *given)
        if Event.objects.filter(instance=row, kind="destroy_failed").exists():
            Instance.objects.filter(pk=row.pk).update(machine_id="")

    around(machines, "_ask_destroy", ask)


@mistake(LIFE + "test_a_plain_life", "lives a_delete_without_effect")
def a_yes_to_the_destroy_is_proof() -> None:
    """A destroy that was answered with success is the machine's end."""

    def ask(right: Any, row: Instance, action: Any, provider: Any, now: datetime) -> None:
        right(row, action, provider, now)
        if Event.objects.filter(instance=row, kind="destroy_answered").exists():
            controller.move(Instance.objects.get(pk=row.pk), State.DESTROYED, now, "Yes.", ended_at=now)

    around(machines, "_ask_destroy", ask)


@mistake(LIFECYCLE + "test_destroys_are_asked_for_again_for_ever_and_slower")
def giving_up_after_five_asks() -> None:
    """A provider that ignored five destroys is not asked again."""
    around(lifecycle, "_next_ask", lambda right, facts: right(facts) if facts.asks < 5 else None)


@mistake(LIFE + "test_deletes_without_effect_are_asked_for_again_until_it_is_gone")
def a_destroy_is_asked_for_once() -> None:
    """What was asked for once is never asked for again."""
    around(lifecycle, "_next_ask", lambda right, facts: right(facts) if facts.asked_at is None else None)


@mistake(LIFE + "test_a_plain_life", "lives plain_life")
def stopping_is_taken_for_done() -> None:
    """A session that says `stopping` is answered for without anything being asked of its machine."""
    around(controller, "end_instances", lambda right, session, reason, now: None)


@mistake(ENGINE + "test_an_end_wished_during_the_login_outlasts_it")
def a_verification_overwrites_the_end() -> None:
    """A login that worked makes a machine `running`, whatever was wished meanwhile."""

    def move(right: Any, row: Instance, to: State, now: datetime, message: str, **fields: Any) -> bool:
        if to is State.RUNNING:
            row.revision = Instance.objects.values_list("revision", flat=True).get(pk=row.pk)
        return right(row, to, now, message, **fields)

    around(controller, "move", move)


@mistake(LIFE + "test_a_machine_that_comes_back_is_destroyed_again", "lives a_machine_that_comes_back")
def what_was_gone_stays_gone() -> None:
    """A machine that was proven gone is not looked for again."""
    around(controller, "resurrect", lambda right, row, now: False)
