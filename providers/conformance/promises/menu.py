"""The menu: whole or not at all, with prices that are exact."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from providers.base import ProviderError, Quote
from providers.conformance.line import DONE_UNHEARD, NOTHING_DONE, Fault, saying
from providers.conformance.stage import Stage


class Menu:
    def test_a_menu_has_quotes_that_can_be_read(self, stage: Stage) -> None:
        quotes = stage.provider.quotes(disk_gb=stage.disk_gb)
        assert len(quotes) >= 3, "let the stand-in offer three at least, so that a part can be told from the whole"
        _check(quotes)

    def test_two_looks_at_the_menu_give_the_same_ids(self, stage: Stage) -> None:
        assert _ids(stage) == _ids(stage)

    @pytest.mark.parametrize("more_disk_gb", [0, 150])
    def test_prices_are_those_of_the_service_to_the_micro_dollar(self, stage: Stage, more_disk_gb: int) -> None:
        disk_gb = stage.disk_gb + more_disk_gb
        for quote in stage.provider.quotes(disk_gb=disk_gb):
            parts = quote.rates.parts(disk_gb)
            assert parts is not None
            assert parts.total == stage.scene.price_of(quote, disk_gb), quote

    @pytest.mark.parametrize("fault", [*NOTHING_DONE, *DONE_UNHEARD], ids=lambda fault: fault.name)
    def test_a_menu_of_which_a_part_is_missing_is_none(self, stage: Stage, fault: Fault) -> None:
        whole = _ids(stage)
        for number in range(stage.requests_of(lambda: _ids(stage))):
            with stage.line.broken(fault, only=number):
                assert _ids_or_none(stage) in (whole, None), f"request {number} of the menu failed"
            with stage.line.broken(fault, first=number):
                assert _ids_or_none(stage) in (whole, None), f"the menu failed from request {number} on"

    def test_a_menu_with_a_broken_member_raises_or_can_be_read(self, stage: Stage) -> None:
        for what, wrong, number in stage.twisted(lambda: _ids(stage)):
            with stage.line.broken(saying(wrong), only=number):
                try:
                    quotes = stage.provider.quotes(disk_gb=stage.disk_gb)
                except ProviderError:
                    continue
            assert quotes, f"an empty menu, from {what}"
            _check(quotes)


def _ids(stage: Stage) -> list[str]:
    return sorted(quote.provider_id for quote in stage.provider.quotes(disk_gb=stage.disk_gb))


def _ids_or_none(stage: Stage) -> list[str] | None:
    try:
        return _ids(stage)
    except ProviderError:
        return None


def _check(quotes: Sequence[Quote]) -> None:
    assert len({quote.provider_id for quote in quotes}) == len(quotes), "an id is on the menu twice"
    for quote in quotes:
        assert 0 < len(quote.provider_id) <= 200, quote
        assert quote.gpu_name.strip(), quote
        assert quote.gpu_count >= 1, quote
        assert quote.vram_gb >= 0, quote
        assert quote.reliability is None or 0 <= quote.reliability <= 1, quote
        assert quote.country == "" or (len(quote.country) == 2 and quote.country.isupper()), quote
        _check_rates(quote)


def _check_rates(quote: Quote) -> None:
    rates = quote.rates
    assert isinstance(rates.gpu, Decimal), f"{quote}: a price that went through a float is not exact"
    assert rates.gpu > 0, quote
    for rate in (rates.gpu, rates.storage_per_gb, rates.cpu, rates.ram):
        assert rate is None or (isinstance(rate, Decimal) and rate.is_finite() and rate >= 0), quote
