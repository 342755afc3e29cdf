"""Manners on the wire, and the verbs that not every provider has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from providers.base import Account, Charge, NotUnderstood, ProviderError, Unavailable
from providers.conformance.line import DONE_UNHEARD, ELSEWHERE, ENDLESS, NOTHING_DONE, Fault
from providers.conformance.stage import CHANGES, READS, Stage, verbs

LONGEST_SILENCE = 300.0  # seconds that a call may wait for the next byte
LONGEST_CALL = timedelta(minutes=15)  # of one verb, its retries included
LARGEST_BODY = 64 * 1024**2  # bytes


class Manners:
    def test_every_request_has_a_time_out_and_checks_the_certificate(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{ELSEWHERE}:3128")
        machine_id = stage.create()
        _everything(stage, machine_id)
        for sent in stage.line.sent:
            assert _is_bounded(sent.timeout), f"a time-out of {sent.timeout}"
            assert sent.verify is not False
            assert not sent.proxies, "the key goes to whatever proxy the environment names"

    @pytest.mark.parametrize(
        "fault", [fault for fault in NOTHING_DONE if "redirect" in fault.name], ids=lambda fault: fault.name
    )
    def test_no_redirect_is_followed(self, stage: Stage, fault: Fault) -> None:
        machine_id = stage.create()
        with stage.line.broken(fault):
            _everything(stage, machine_id)
        assert ELSEWHERE not in {sent.host for sent in stage.line.sent}

    @pytest.mark.parametrize("verb", [*READS, *CHANGES])
    def test_an_answer_that_drips_is_given_up(self, stage: Stage, verb: str) -> None:
        (drips,) = [fault for fault in DONE_UNHEARD if "drips" in fault.name]
        machine_id, ask = stage.create(), verbs(stage, {**READS, **CHANGES}).get(verb)
        began = stage.clock.now()
        with stage.line.broken(drips), contextlib.suppress(ProviderError):
            if ask:
                ask(stage, machine_id)
        assert stage.clock.now() - began < LONGEST_CALL

    def test_an_answer_without_end_is_given_up(self, stage: Stage) -> None:
        with stage.line.broken(ENDLESS), pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.machines()
        assert stage.line.streams
        assert all(stream.given <= LARGEST_BODY for stream in stage.line.streams)

    def test_another_process_with_the_same_key_rents_sees_and_ends(self, stage: Stage) -> None:
        """Nothing is remembered that a process which has just begun would lack."""
        machine_id, spec = stage.create(), stage.spec()
        stage.provider = stage.adapter(stage.scene.key)
        other = stage.provider.create(spec)
        assert set(stage.listed()) == {machine_id, other}
        stage.provider = stage.adapter(stage.scene.key)
        stage.provider.destroy(machine_id)
        assert stage.provider.machine(machine_id) is None
        assert set(stage.listed()) == {other}

    def test_an_account_is_told_in_whole_micro_dollars(self, stage: Stage) -> None:
        account = stage.provider.account()
        assert isinstance(account, Account)
        assert isinstance(account.id, str)
        assert account.balance is None or type(account.balance) is int

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD], ids=lambda fault: fault.name)
    def test_an_account_that_does_not_answer_is_no_account(self, stage: Stage, fault: Fault) -> None:
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            stage.provider.account()

    def test_a_machine_s_price_is_the_quote_s_where_it_is_told(self, stage: Stage) -> None:
        quote = stage.quote()
        price = stage.look(stage.provider.create(stage.spec(quote=quote))).price
        if price is not None:
            assert price.total == stage.scene.price_of(quote, stage.disk_gb)

    def test_a_new_label_is_one_request_and_is_read_back(self, stage: Stage) -> None:
        machine_id = _claiming(stage, "can_relabel").create()
        stage.sends_one(lambda: stage.provider.relabel(machine_id, "gs-kit-renamed"))
        assert stage.look(machine_id).label == "gs-kit-renamed"

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD], ids=lambda fault: fault.name)
    def test_a_new_label_and_a_key_are_sent_once_whatever_comes_of_it(self, stage: Stage, fault: Fault) -> None:
        machine_id = stage.create()
        for verb in ("relabel", "attach_key"):
            if ask := verbs(stage, CHANGES).get(verb):
                with stage.line.broken(fault), contextlib.suppress(ProviderError):
                    stage.sends_one(lambda ask=ask: ask(stage, machine_id))  # type: ignore[misc]

    def test_a_key_may_be_added_twice(self, stage: Stage) -> None:
        machine_id = stage.create()
        for _ in range(2):
            CHANGES["attach_key"](stage, machine_id)

    def test_charges_have_times_and_whole_micro_dollars(self, stage: Stage) -> None:
        machine_id = _claiming(stage, "has_charges").create()
        stage.clock.sleep(7200)
        until = stage.clock.now()
        for charge in stage.provider.charges(until - timedelta(days=1), until):
            assert isinstance(charge, Charge)
            assert charge.machine_id == machine_id
            assert type(charge.amount) is int
            assert charge.started_at.tzinfo is not None
            assert charge.started_at <= charge.ended_at

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD], ids=lambda fault: fault.name)
    def test_a_bill_that_does_not_come_is_not_an_empty_one(self, stage: Stage, fault: Fault) -> None:
        machine_id = _claiming(stage, "has_charges").create()
        with stage.line.broken(fault), pytest.raises((Unavailable, NotUnderstood)):
            READS["charges"](stage, machine_id)


def _everything(stage: Stage, machine_id: str) -> None:
    spec_or_none: list[Any] = []
    with contextlib.suppress(ProviderError):
        spec_or_none.append(stage.spec())
    asks: list[Callable[[], object]] = [lambda spec=spec: stage.provider.create(spec) for spec in spec_or_none]  # type: ignore[misc]
    for ask in asks:
        with contextlib.suppress(ProviderError):
            ask()
    for each in verbs(stage, {**READS, **CHANGES}).values():
        with contextlib.suppress(ProviderError):
            each(stage, machine_id)


def _claiming(stage: Stage, trait: str) -> Stage:
    if not getattr(stage.provider.traits, trait):
        pytest.skip(f"the adapter does not claim {trait}")
    return stage


def _is_bounded(timeout: Any) -> bool:
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return all(isinstance(part, (int, float)) and 0 < part <= LONGEST_SILENCE for part in parts)
