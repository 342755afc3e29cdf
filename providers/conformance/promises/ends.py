"""Ends: a destroy is asked for, never believed, and may be asked for again."""

from __future__ import annotations

import contextlib

import pytest

from providers.base import NotUnderstood, ProviderError, Unavailable
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, Fault, instead
from providers.conformance.stage import Stage

# What nobody may take for a yes.
_FAILURES = tuple(fault for fault in (*NOTHING_DONE, *DONE_UNHEARD) if fault.name.startswith("a gateway says 5"))
_SILENCES = (*NOTHING_DONE[:2], DONE_UNHEARD[0])


class Ends:
    def test_a_destroyed_machine_is_not_there_by_either_way_of_asking(self, stage: Stage) -> None:
        machine_id, other = stage.create(), stage.create()
        stage.sends_one(lambda: stage.provider.destroy(machine_id))
        assert stage.provider.machine(machine_id) is None
        assert list(stage.listed()) == [other]

    def test_to_destroy_what_is_gone_is_no_error(self, stage: Stage) -> None:
        machine_id = stage.create()
        for _ in range(3):
            stage.provider.destroy(machine_id)
        assert stage.provider.machine(machine_id) is None

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD], ids=lambda fault: fault.name)
    def test_a_destroy_is_sent_once_whatever_comes_of_it(self, stage: Stage, fault: Fault) -> None:
        machine_id = stage.create()
        with stage.line.broken(fault), contextlib.suppress(ProviderError):
            stage.sends_one(lambda: stage.provider.destroy(machine_id))
        assert (machine_id in stage.listed()) is not fault.done
        assert (stage.provider.machine(machine_id) is None) is fault.done

    @pytest.mark.parametrize("fault", [*_SILENCES, *_FAILURES], ids=lambda fault: fault.name)
    def test_a_destroy_that_failed_is_told(self, stage: Stage, fault: Fault) -> None:
        machine_id = stage.create()
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.destroy(machine_id)

    def test_a_yes_to_a_destroy_is_not_believed(self, stage: Stage) -> None:
        """The service says what it says to a destroy that works, and does nothing."""
        first, second = stage.create(), stage.create()
        (yes,) = stage.answers_to(lambda: stage.provider.destroy(first))
        with stage.line.broken(instead(yes)):
            stage.provider.destroy(second)
        assert stage.look(second).id == second
        assert list(stage.listed()) == [second]
