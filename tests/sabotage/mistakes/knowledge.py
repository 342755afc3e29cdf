"""Mistakes about what is known of a machine: an error, a silence or one look taken for a fact."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F

from providers import tag
from providers.base import MachineState, ProviderError
from providers.tag import Ownership, Reading
from providers.tensordock import TensorDock
from providers.vastai import VastAI
from sessions import lifecycle, reconcile
from sessions.models import Instance
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around

EITHER = "tests/contract/test_either.py::"
LIFE = "tests/sessions/test_life.py::"
LIFECYCLE = "tests/sessions/test_lifecycle.py::"
RECONCILE = "tests/sessions/test_reconcile.py::"

ADAPTERS = (VastAI, TensorDock)


@mistake(EITHER + "test_an_answer_that_is_none_never_reads_as_nothing_there")
def an_error_is_read_as_gone() -> None:
    """A look-up that fails says that the machine is not there."""

    def machine(right: Any, *given: Any) -> Any:
        try:
            return right(*given)
        except ProviderError:
            return None

    for adapter in ADAPTERS:
        around(adapter, "machine", machine)


@mistake(EITHER + "test_an_answer_that_is_none_never_reads_as_nothing_there")
def an_error_is_read_as_an_empty_list() -> None:
    """A listing that fails says that there are no machines."""

    def machines(right: Any, *given: Any) -> Any:
        try:
            return right(*given)
        except ProviderError:
            return []

    for adapter in ADAPTERS:
        around(adapter, "machines", machines)


@mistake("tests/providers/test_vastai.py::test_a_second_page_that_fails_fails_the_listing")
def a_partial_page_is_a_listing() -> None:
    """A listing that breaks off after its first page counts as a whole one."""

    def pages(right: Any, *given: Any) -> Any:
        first = next(right(*given))
        yield {**first, "total_instances": 0}

    around(VastAI, "_pages", pages)


@mistake(EITHER + "test_a_machine_that_stopped_by_itself_exists_and_is_down", "lives a_machine_that_stops")
def not_running_is_read_as_destroyed() -> None:
    """The adapters show no machine that is down."""

    def machines(right: Any, *given: Any) -> Any:
        return [machine for machine in right(*given) if machine.state is not MachineState.DOWN]

    def machine(right: Any, *given: Any) -> Any:
        found = right(*given)
        return found if found and found.state is not MachineState.DOWN else None

    for adapter in ADAPTERS:
        around(adapter, "machines", machines)
        around(adapter, "machine", machine)


@mistake(LIFECYCLE + "test_each_half_of_the_proof_is_needed")
def one_listing_without_it_is_enough() -> None:
    """The first listing that lacks a machine, however soon, is the first witness of its absence."""
    around(lifecycle, "unlisted", lambda right, facts, confirm: facts.misses >= 1)


@mistake(LIFECYCLE + "test_each_half_of_the_proof_is_needed")
def one_denial_is_proof() -> None:
    """A look-up by id that finds nothing is proof without any listing."""
    around(
        lifecycle, "proven_absent",
        lambda right, facts, limits: facts.denied_at is not None or right(facts, limits),
    )  # fmt: skip


@mistake(RECONCILE + "test_an_outage_moves_none_of_the_instants_that_knowledge_is_made_of")
def an_outage_counts_as_silence() -> None:
    """A listing that failed is written down as one that did not contain the machines."""

    def blind(right: Any, account: Any, error: Any, now: datetime) -> Any:
        rows = Instance.objects.filter(provider=account.provider, state__in=lifecycle.MAY_EXIST)
        rows.update(looked_at=now, misses=F("misses") + 1)
        return right(account, error, now)

    around(reconcile, "_blind", blind)


@mistake(RECONCILE + "test_a_machine_whose_row_was_written_during_the_listing_is_no_stranger")
def rows_are_read_before_the_listing() -> None:
    """A row that was inserted while the account was listed is not in sight, so its machine is a stranger's."""
    read: dict[str, list[Instance]] = {}

    def identity(right: Any, provider: Any, account: Any) -> str:
        read[account.provider] = list(Instance.objects.filter(provider=account.provider))
        return right(provider, account)

    around(reconcile, "_identity", identity)
    around(reconcile, "_rows", lambda right, provider, identity, machines: read[provider])


@mistake(LIFE + "test_a_machine_of_another_life_is_adopted_and_destroyed")
def adoption_without_grace() -> None:
    """A machine of ours without a row is taken as an orphan at the first sight of it."""

    def note(right: Any, provider: str, machine: Any, ownership: Ownership, began: datetime) -> Any:
        stranger = right(provider, machine, ownership, began)
        stranger.first_seen_at = began - timedelta(days=1)
        return stranger

    around(reconcile, "_note_stranger", note)


@mistake(
    "tests/providers/test_tag.py::test_what_is_not_signed_by_us_is_never_ours",
    "lives two_deployments_on_one_account",
)
def ownership_by_prefix() -> None:
    """What begins as our labels do is ours."""

    def read(right: Any, label: str | None, deployment: str, keys: Any) -> Reading:
        if (label or "").lower().startswith(f"{tag.PREFIX}-{deployment}-"):
            return Reading(Ownership.OURS, datetime.now(UTC))
        return right(label, deployment, keys)

    around(tag, "read", read)


@mistake(RECONCILE + "test_a_listing_from_before_the_create_is_no_miss")
def old_listings_count_as_misses() -> None:
    """A listing that began before a machine was touched counts as one that lacks it."""
    around(reconcile, "touched_at", lambda right, facts: facts.launched_at and datetime.min.replace(tzinfo=UTC))


@mistake(LIFECYCLE + "test_without_an_id_only_a_long_silence_is_proof")
def a_lost_create_is_denied_as_soon_as_any_machine() -> None:
    """Without an id the listings need not be silent for longer than with one."""
    around(
        lifecycle, "proven_absent",
        lambda right, facts, limits: right(facts, replace(limits, settle=limits.confirm)),
    )  # fmt: skip
