"""A look-up by id: absent only if the service itself said so. An error is never a fact about a machine."""

from __future__ import annotations

import pytest

from providers.base import NotUnderstood, ProviderError, Unavailable
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, TOO_MANY, Fault, saying
from providers.conformance.stage import Stage

NO_IDS = ["", "..", "../account", "1/../2", "1?all=1", "1#", "a b", "1\r\n2"]


class Lookups:
    def test_what_is_listed_is_found_by_its_id_and_is_the_same(self, stage: Stage) -> None:
        stage.fill()
        for machine in stage.provider.machines():
            found = stage.look(machine.id)
            assert (found.id, found.label) == (machine.id, machine.label)
            assert found.gpu_count == machine.gpu_count

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD, TOO_MANY], ids=lambda fault: fault.name)
    def test_a_look_that_fails_is_no_news_of_the_machine(self, stage: Stage, fault: Fault) -> None:
        machine_id = stage.create()
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.machine(machine_id)
        assert stage.look(machine_id).id == machine_id

    def test_too_many_requests_say_how_long_to_keep_away(self, stage: Stage) -> None:
        machine_id = stage.create()
        for ask in (stage.provider.machines, lambda: stage.provider.machine(machine_id)):
            with stage.line.broken(TOO_MANY), pytest.raises(Unavailable) as limited:
                ask()
            assert limited.value.retry_after is not None
            assert limited.value.retry_after >= 7

    def test_an_answer_with_a_broken_member_never_reads_as_absent(self, stage: Stage) -> None:
        machine_id, gone = stage.create(), stage.create()
        stage.provider.destroy(gone)
        absent = [answer.body for answer in stage.answers_to(lambda: stage.provider.machine(gone))]
        for what, wrong, number in stage.twisted(lambda: stage.provider.machine(machine_id)):
            if wrong.body in absent:
                continue  # that is how this service says that there is none
            with stage.line.broken(saying(wrong), only=number):
                assert _id_or_error(stage, machine_id) in (machine_id, "error"), what

    @pytest.mark.parametrize("machine_id", NO_IDS)
    def test_what_can_be_no_id_is_not_asked_for(self, stage: Stage, machine_id: str) -> None:
        bystander = stage.create()
        for ask in (stage.provider.machine, stage.provider.destroy):
            with pytest.raises(ProviderError):
                ask(machine_id)
        assert list(stage.listed()) == [bystander]


def _id_or_error(stage: Stage, machine_id: str) -> str | None:
    try:
        found = stage.provider.machine(machine_id)
    except ProviderError:
        return "error"
    return found.id if found else None
