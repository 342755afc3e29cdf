"""A listing: every machine of the account, or an error. A shorter one would be taken for the end of machines."""

from __future__ import annotations

import pytest

from providers.base import NotUnderstood, ProviderError, Unavailable
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, TOO_MANY, Fault, saying
from providers.conformance.stage import Stage


class Listings:
    def test_an_account_without_machines_is_an_empty_list(self, stage: Stage) -> None:
        assert list(stage.provider.machines()) == []

    def test_every_machine_is_listed_with_its_label(self, stage: Stage) -> None:
        assert stage.fill() == stage.listed()

    def test_machines_of_others_on_the_account_are_listed_too(self, stage: Stage) -> None:
        labels = {stage.create(label): label for label in ("training-7", "gs-somebody-else")}
        assert stage.listed() == labels

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD, TOO_MANY], ids=lambda fault: fault.name)
    def test_a_listing_of_which_a_part_fails_is_whole_or_none(self, stage: Stage, fault: Fault) -> None:
        stage.fill()
        whole = set(stage.listed())
        for number in range(stage.requests_of(stage.provider.machines)):
            with stage.line.broken(fault, only=number):
                assert _ids_or_none(stage) in (whole, None), f"request {number} of the listing failed"
            with stage.line.broken(fault, first=number):
                assert _ids_or_none(stage) in (whole, None), f"the listing failed from request {number} on"

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD, TOO_MANY], ids=lambda fault: fault.name)
    def test_a_listing_that_fails_as_a_whole_is_never_an_empty_account(self, stage: Stage, fault: Fault) -> None:
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.machines()

    def test_a_listing_with_a_broken_member_is_whole_or_none(self, stage: Stage) -> None:
        stage.fill()
        whole = set(stage.listed())
        for what, wrong, number in stage.twisted(stage.provider.machines):
            with stage.line.broken(saying(wrong), only=number):
                assert _ids_or_none(stage) in (whole, None), what

    def test_a_listing_that_the_service_cut_short_is_none(self, stage: Stage, short_listing: str) -> None:
        stage.fill()
        stage.scene.trouble(short_listing)
        with pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.machines()


def _ids_or_none(stage: Stage) -> set[str] | None:
    try:
        return set(stage.listed())
    except ProviderError:
        return None
