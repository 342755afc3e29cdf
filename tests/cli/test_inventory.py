from __future__ import annotations

import json
from typing import Any

import pytest

from gpushopper.cli import terminal
from inventory import refresh
from providers.base import Unavailable
from tests.cli.conftest import GpuShopper, World
from tests.fakes import FakeProvider, quote

pytestmark = pytest.mark.usefixtures("alice")


def offers(gpu_shopper: GpuShopper, *arguments: str) -> list[str]:
    said = gpu_shopper("inventory", "-o", "json", *arguments)
    assert said.code == 0, said.err
    return [offer["id"] for offer in json.loads(said.out)["offers"]]


def test_the_menu_can_be_read_by_a_person(gpu_shopper: GpuShopper, settings: Any) -> None:
    settings.SANDBOX = False
    said = gpu_shopper("inventory")
    assert said.code == 0
    assert not said.err
    assert "fake-1" in said.out
    assert "RTX 4090" in said.out
    assert "8 × H100 SXM" in said.out
    assert "24 GB" in said.out
    assert "0.4100" in said.out, "0.40 for the GPU, and 50 GB of disk"
    assert "99.0 %" in said.out
    assert "3 offers." in said.out
    assert "fake: listed 4 s ago" in said.out


def test_on_a_narrow_terminal_nothing_is_cut_short(
    gpu_shopper: GpuShopper, service: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An offer's id is typed again, and some have more than 70 characters."""
    long = "c5c14262-4d84-4ec5-9334-886ff164f9d8-geforcertx4090-pcie-24gb"
    provider.menu = [quote(long, location="Frankfurt am Main, Hesse, Germany")]
    service.engine.clock.advance(3600)
    refresh.refresh("fake")
    monkeypatch.setattr(terminal, "WIDTH_WITHOUT_TERMINAL", 40)
    said = gpu_shopper("inventory")
    assert f"fake-{long}" in said.out
    assert "0.4100" in said.out
    assert "Frankfurt am Main, Hess…" in said.out


def test_bounds_are_passed_on(gpu_shopper: GpuShopper) -> None:
    assert offers(gpu_shopper) == ["fake-1", "fake-2", "fake-3"]
    assert offers(gpu_shopper, "-g", "rtx4090") == ["fake-1", "fake-2"]
    assert offers(gpu_shopper, "--gpu-type", "rtx4090", "-g", "H100 SXM") == ["fake-1", "fake-2", "fake-3"]
    assert offers(gpu_shopper, "--max-price", "0.1") == []
    assert offers(gpu_shopper, "-p", "0.1") == []
    assert offers(gpu_shopper, "--min-gpu-count", "8") == ["fake-3"]
    assert offers(gpu_shopper, "--min-vram", "25") == []
    assert offers(gpu_shopper, "--min-reliability", "0.999") == []
    assert offers(gpu_shopper, "--min-availability-confidence", "1") == []
    assert offers(gpu_shopper, "--min-cuda", "13.0") == []
    assert offers(gpu_shopper, "--location", "quebec", "--country", "CA", "--provider", "fake") != []
    assert offers(gpu_shopper, "--country", "US") == []
    assert offers(gpu_shopper, "--limit", "1", "--offset", "1", "--sort", "-vram_gb") == ["fake-2"]


def test_a_page_says_that_there_is_more(gpu_shopper: GpuShopper) -> None:
    assert "1 of 3 sandbox offers" in gpu_shopper("inventory", "--limit", "1").out


def test_an_empty_menu_says_what_to_do(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("inventory", "-p", "0.1")
    assert said.code == 0
    assert "No offer fits" in said.out


def test_one_offer(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("inventory", "fake-1")
    assert "gpu 0.4000, storage 0.0100" in said.out
    assert json.loads(gpu_shopper("inventory", "fake-1", "-o", "json").out)["id"] == "fake-1"


def test_an_offer_that_is_not_there(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("inventory", "fake-99")
    assert said.code == 1
    assert "No such offer" in said.err
    assert "request id" in said.err


def test_an_impossible_bound_is_named(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("inventory", "--country", "Canada")
    assert said.code == 1
    assert "country: " in said.err
    assert not said.out


def test_sandbox_offers_are_marked(gpu_shopper: GpuShopper, settings: Any) -> None:
    settings.SANDBOX = False
    assert "sandbox" not in gpu_shopper("inventory").out.lower()
    settings.SANDBOX = True
    listed, one = gpu_shopper("inventory").out, gpu_shopper("inventory", "fake-1").out
    assert "nothing real is rented" in listed
    assert "3 sandbox offers." in listed
    assert "nothing real is rented" in one


def test_old_offers_are_said_to_be_old(gpu_shopper: GpuShopper, service: World, provider: FakeProvider) -> None:
    service.engine.clock.advance(3600)
    provider.trouble["quotes"] = [Unavailable("no answer")]
    refresh.refresh("fake")
    assert "these offers are old" in gpu_shopper("inventory").out
