"""Mistakes about deadlines, and about who keeps them when somebody does not answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F

from sessions import controller, engine, lifecycle, rows
from sessions.lifecycle import State
from sessions.models import Instance, Session
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around

ENGINE = "tests/sessions/test_engine.py::"
LIFECYCLE = "tests/sessions/test_lifecycle.py::"


@mistake(LIFECYCLE + "test_deadlines_hold_in_every_state")
def deadlines_hold_only_while_it_runs() -> None:
    """A machine that boots, or was never heard of, has no deadline."""
    around(
        lifecycle, "due_end",
        lambda right, facts, limits, now: right(facts, limits, now) if facts.state is State.RUNNING else None,
    )  # fmt: skip


@mistake(
    "tests/api/test_sessions.py::test_an_extension_stays_within_the_hard_maximum",
    "lives hard_maximum_in_spite_of_extensions",
)
def the_hard_maximum_bounds_one_extension_only() -> None:
    """Each extension is compared with the maximum, and not what they add up to."""

    def extend(right: Any, pk: Any, additional: timedelta, now: datetime, **named: Any) -> Any:
        if additional <= settings.HARD_MAX:
            named["override_reason"] = named.get("override_reason") or "short enough"
        return right(pk, additional, now, **named)

    around(controller, "extend", extend)


@mistake("tests/sessions/test_life.py::test_extension_moves_the_deadline_of_the_machine_too", "lives extension")
def an_extension_forgets_the_machine() -> None:
    """The session lasts longer and its machine does not."""

    def extend(right: Any, session: Session, reservation: timedelta, additional: timedelta, now: datetime) -> None:
        before = dict(session.instances.values_list("pk", "deadline"))
        right(session, reservation, additional, now)
        for pk, deadline in before.items():
            Instance.objects.filter(pk=pk).update(deadline=deadline)

    around(controller, "_extend_rows", extend)


@mistake(ENGINE + "test_what_one_provider_leaves_undone_hides_nothing_of_another")
def one_queue_for_all_providers() -> None:
    """The longest overdue rows come first, whosever they are, and there is room for so many."""

    def due(right: Any, now: datetime, provider: str | None = None) -> list[Instance]:
        found = Instance.objects.filter(due_at__lte=now).order_by("due_at")
        return list((found.filter(provider=provider) if provider else found)[: rows.AT_ONCE])

    around(rows, "due_instances", due)


@mistake(ENGINE + "test_a_provider_that_never_answers_holds_up_no_other")
def one_thread_for_all_providers() -> None:
    """The guardian looks after one provider when it is done with the one before."""
    around(engine.Guardian, "_send_for", lambda right, guardian, provider: guardian._look_after(provider))


@mistake(ENGINE + "test_a_provider_that_never_answers_holds_a_few_threads_and_no_more")
def a_dead_provider_may_hold_every_thread() -> None:
    """There is no limit to the workers that wait for one provider."""
    engine._seats.count = 10**6


@mistake(ENGINE + "test_a_worker_that_wakes_up_too_late_writes_nothing")
def no_fence() -> None:
    """A worker that lost its claim long ago still writes down what it decided then."""

    def write(right: Any, row: Any, **fields: Any) -> bool:
        row.revision = type(row)._default_manager.values_list("revision", flat=True).get(pk=row.pk)
        return right(row, **fields)

    around(rows, "write", write)


@mistake(ENGINE + "test_a_row_is_claimed_by_one_worker_only")
def a_claim_without_a_condition() -> None:
    """Whoever finds a row due may take a step for it, though somebody else does so already."""

    def claim(right: Any, model: Any, pk: Any, now: datetime) -> Any:
        row = model._default_manager.filter(pk=pk, due_at__isnull=False).first()
        if row is not None:
            model._default_manager.filter(pk=pk).update(due_at=now + rows.LEASE, revision=F("revision") + 1)
            row.refresh_from_db()
        return row

    around(rows, "claim", claim)


@mistake(ENGINE + "test_a_session_is_not_put_to_sleep_over_a_move_that_its_step_has_not_seen")
def a_wake_up_that_can_be_slept_through() -> None:
    """A machine's move makes its session due, and a step of the session under way puts it to sleep again."""

    def nudge(right: Any, row: Instance, now: datetime) -> None:
        before = Session.objects.filter(pk=row.session_id).values_list("revision", flat=True).first()
        right(row, now)
        if before is not None:
            Session.objects.filter(pk=row.session_id).update(revision=before)

    around(controller, "_nudge", nudge)
