"""A create: one request, whatever comes back; a label that is kept; refusals that say what was made."""

from __future__ import annotations

import pytest

from providers import tag
from providers.base import NotUnderstood, ProviderError, Refusal, Refused, Unavailable
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, TOO_MANY, Fault, instead, twists
from providers.conformance.stage import DEPLOYMENT, TAG_KEY, Stage


class Creates:
    def test_a_create_is_one_request_and_makes_one_machine(self, stage: Stage) -> None:
        spec = stage.spec()
        made: list[str] = []
        assert stage.requests_of(lambda: made.append(stage.provider.create(spec))) == 1
        assert list(stage.listed()) == made
        assert isinstance(made[0], str)
        assert 0 < len(made[0]) <= 100

    def test_our_label_is_kept_as_it_is_and_read_as_ours(self, stage: Stage) -> None:
        spec = stage.spec()
        machine_id = stage.provider.create(spec)
        assert stage.look(machine_id).label == spec.label
        assert stage.listed() == {machine_id: spec.label}
        assert tag.read(spec.label, DEPLOYMENT, [TAG_KEY]).ownership is tag.Ownership.OURS

    @pytest.mark.parametrize("fault", DONE_UNHEARD, ids=lambda fault: fault.name)
    def test_a_create_that_is_not_heard_of_is_sent_once_and_found_by_its_label(
        self, stage: Stage, fault: Fault
    ) -> None:
        spec = stage.spec()
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.sends_one(lambda: stage.provider.create(spec))
        assert list(stage.listed().values()) == [spec.label]

    @pytest.mark.parametrize("fault", NOTHING_DONE, ids=lambda fault: fault.name)
    def test_a_create_without_an_answer_of_the_service_is_sent_once_and_is_no_refusal(
        self, stage: Stage, fault: Fault
    ) -> None:
        spec = stage.spec()
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.sends_one(lambda: stage.provider.create(spec))
        assert stage.listed() == {}

    def test_a_create_among_too_many_requests_is_sent_once(self, stage: Stage) -> None:
        spec = stage.spec()
        with stage.line.broken(TOO_MANY), pytest.raises((Unavailable, NotUnderstood, Refused)) as limited:
            stage.sends_one(lambda: stage.provider.create(spec))
        if isinstance(limited.value, Refused):
            assert limited.value.why is Refusal.BUSY

    def test_a_yes_with_a_broken_member_is_the_machine_or_no_answer(self, stage: Stage) -> None:
        spec = stage.spec()
        made: list[str] = []
        (yes,) = stage.answers_to(lambda: made.append(stage.provider.create(spec)))
        for what, wrong in twists(yes):
            with stage.line.broken(instead(wrong)):
                try:
                    assert stage.provider.create(spec) == made[0], f"an id that was not told, from {what}"
                except Refused as refused:
                    assert refused.machine_id == made[0], f"refused, from a yes with {what}"
                except (Unavailable, NotUnderstood):
                    continue

    def test_a_refusal_says_why_and_makes_nothing(self, stage: Stage, refusal: str) -> None:
        spec = stage.spec()
        stage.scene.trouble(refusal)
        with pytest.raises(Refused) as refused:
            stage.sends_one(lambda: stage.provider.create(spec))
        assert refused.value.machine_id is None
        assert refused.value.why is stage.scene.refusals[refusal]
        assert stage.listed() == {}

    def test_a_refusal_that_made_a_machine_all_the_same_names_it(self, stage: Stage, refusal_that_made: str) -> None:
        spec = stage.spec()
        stage.scene.trouble(refusal_that_made)
        with pytest.raises(Refused) as refused:
            stage.sends_one(lambda: stage.provider.create(spec))
        assert refused.value.machine_id is not None
        assert stage.listed() == {refused.value.machine_id: spec.label}

    @pytest.mark.parametrize("quote_id", ["no-such-quote", "../../machines", "1?x=1", ""])
    def test_a_quote_that_is_none_makes_nothing(self, stage: Stage, quote_id: str) -> None:
        spec = stage.spec(quote_id=quote_id)
        before = len(stage.line.sent)
        with pytest.raises(ProviderError):
            stage.provider.create(spec)
        assert len(stage.line.sent) - before <= 1
        assert stage.listed() == {}
