"""Credentials: a wrong key is told as that and says nothing of machines; a key is shown nowhere."""

from __future__ import annotations

import logging
import traceback

import pytest

from providers.base import Provider, ProviderError, Unauthorized
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, echo
from providers.conformance.stage import CHANGES, READS, Stage, verbs

ECHOES = tuple(map(echo, (200, 400, 401, 403, 404, 409, 429, 500, 503)))


class Keys:
    def test_a_wrong_key_is_told_as_that_by_every_verb_and_changes_nothing(self, stage: Stage) -> None:
        machine_id, spec = stage.create(), stage.spec()
        other = stage.adapter(stage.scene.wrong_key)
        stage.provider, ours = other, stage.provider
        _rejected(stage, machine_id)
        with pytest.raises(Unauthorized):
            stage.sends_one(lambda: other.create(spec))
        stage.provider = ours
        assert list(stage.listed()) == [machine_id]

    def test_a_key_that_is_rejected_in_another_way_is_told_as_that(self, stage: Stage, rejection: str) -> None:
        machine_id, spec = stage.create(), stage.spec()
        stage.scene.trouble(rejection)
        _rejected(stage, machine_id)
        with pytest.raises(Unauthorized):
            stage.sends_one(lambda: stage.provider.create(spec))

    def test_the_key_is_in_no_error_and_in_no_log(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        machine_id, spec = stage.create(), stage.spec()
        told = []
        for fault in (*NOTHING_DONE, *DONE_UNHEARD, *ECHOES):
            for verb, ask in verbs(stage, {**READS, **CHANGES}).items():
                with stage.line.broken(fault):
                    told.append(f"{verb}, {fault.name}: {_error(lambda ask=ask: ask(stage, machine_id))}")
            with stage.line.broken(fault):
                told.append(f"create, {fault.name}: {_error(lambda: stage.provider.create(spec))}")
        assert [error for error in told if stage.scene.key in error] == []
        assert stage.scene.key not in caplog.text

    def test_a_wrong_key_is_shown_as_little_as_a_right_one(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        other = stage.adapter(stage.scene.wrong_key)
        told = _error(other.machines) + _error(other.account)
        assert stage.scene.wrong_key not in told + caplog.text

    def test_the_key_is_not_shown_by_what_the_adapter_looks_like(self, stage: Stage) -> None:
        assert stage.scene.key not in _looks(stage.provider)


def _rejected(stage: Stage, machine_id: str) -> None:
    for verb, ask in verbs(stage, {**READS, **CHANGES}).items():
        if verb == "quotes":
            continue  # a menu may be public
        with pytest.raises(Unauthorized):
            ask(stage, machine_id)
            pytest.fail(f"{verb} does not tell that the key is wrong")


def _error(ask: object) -> str:
    """Whatever a log or a page could show of the error; "" if there is none."""
    try:
        ask()  # type: ignore[operator]
    except ProviderError as error:
        return f"{error} {error!r} {vars(error)} {''.join(traceback.format_exception(error))}"
    return ""


def _looks(provider: Provider) -> str:
    parts = [f"{part!r} {part}" for part in getattr(provider, "__dict__", {}).values() if not isinstance(part, str)]
    return f"{provider!r} {provider} {' '.join(parts)}"
