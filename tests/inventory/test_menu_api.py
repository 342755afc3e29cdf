from __future__ import annotations

from decimal import Decimal

import pytest
from rest_framework.test import APIClient

from inventory import menu, refresh
from providers import registry
from providers.base import Rates, Unavailable
from tests.fakes import FakeClock, FakeProvider, quote


@pytest.fixture
def provider(virtual: FakeClock, db: None) -> FakeProvider:
    fake = FakeProvider(
        quotes=[
            quote("1", gpu_name="RTX_4090", rates=Rates(gpu=Decimal("0.40")), reliability=0.9),
            quote("2", gpu_name="geforcertx4090-pcie-24gb", rates=Rates(gpu=Decimal("0.35")), country="US",
                  location="Ohio, US", cuda_version="12.4"),
            quote("3", gpu_name="H100 SXM", vram_gb=80, gpu_count=8, rates=Rates(gpu=Decimal("16")), reliability=None),
            quote("4", gpu_name="RTX 3090", rates=Rates(gpu=Decimal("0.20")), reliability=0.5),
        ]
    )  # fmt: skip
    registry.use({"fake": fake})
    refresh.refresh("fake")
    return fake


def ids(client: APIClient, query: str = "") -> list[str]:
    answer = client.get(f"/api/v1/inventory?{query}")
    assert answer.status_code == 200, answer.content
    return [offer["id"].removeprefix("fake-") for offer in answer.json()["offers"]]


def test_the_menu_is_ordered_by_price(alice: APIClient, provider: FakeProvider) -> None:
    assert ids(alice) == ["4", "2", "1", "3"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("gpu_type=RTX 4090", ["2", "1"]),
        ("gpu_type=rtx4090&gpu_type=h100-sxm5-80gb", ["2", "1", "3"]),
        ("gpu_type=geforcertx4090-pcie-24gb", ["2", "1"]),
        ("min_vram=48", ["3"]),
        ("gpu_count=2", ["3"]),
        ("min_gpu_count=2", ["3"]),
        ("max_price=0.36", ["4", "2"]),
        ("max_price=0", []),
        ("min_reliability=0.95", ["2"]),
        ("min_availability_confidence=0.95", ["2"]),
        ("min_cuda=12.5", ["4", "1", "3"]),
        ("location=oHiO", ["2"]),
        ("country=us", ["2"]),
        ("provider=fake&limit=1&offset=1", ["2"]),
        ("sort=-reliability", ["2", "1", "4", "3"]),
        ("sort=-vram_gb&limit=1", ["3"]),
        ("sort=value&limit=1", ["2"]),
        ("sort=-availability_confidence&limit=1", ["2"]),
    ],
)
def test_each_bound_and_order(alice: APIClient, provider: FakeProvider, query: str, expected: list[str]) -> None:
    assert ids(alice, query) == expected


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("provider=nobody", "provider"),
        ("gpu_type=", "gpu_type"),
        ("min_vram=-1", "min_vram"),
        ("min_vram=x", "min_vram"),
        ("max_price=NaN", "max_price"),
        ("max_price=Infinity", "max_price"),
        ("max_price=-1", "max_price"),
        ("max_price=1e99", "max_price"),
        ("min_reliability=2", "min_reliability"),
        ("min_reliability=nan", "min_reliability"),
        ("min_cuda=new", "min_cuda"),
        ("country=USA", "country"),
        ("sort=cheapest", "sort"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("offset=-1", "offset"),
        ("limit=1&limit=2", "limit"),
        ("colour=red", "colour"),
    ],
)
def test_each_bad_parameter_is_named(alice: APIClient, provider: FakeProvider, query: str, name: str) -> None:
    answer = alice.get(f"/api/v1/inventory?{query}")
    assert answer.status_code == 400
    body = answer.json()
    assert name in body["fields"] and body["error_type"] == "invalid_request" and body["request_id"]


def test_paging_is_stable_and_complete(alice: APIClient, provider: FakeProvider) -> None:
    provider.menu = [quote(str(number)) for number in range(30)]
    refresh.refresh("fake", even_if_not_due=True)
    pages = [ids(alice, f"limit=7&offset={offset}") for offset in range(0, 35, 7)]
    together = [offer for page in pages for offer in page]
    assert len(together) == len(set(together)) == 30


def test_an_unchanged_menu_is_304_and_a_changed_one_is_not(
    alice: APIClient, provider: FakeProvider, virtual: FakeClock
) -> None:
    first = alice.get("/api/v1/inventory?gpu_type=rtx4090")
    tag = first["ETag"]
    assert alice.get("/api/v1/inventory?gpu_type=rtx4090", HTTP_IF_NONE_MATCH=tag).status_code == 304
    assert alice.get("/api/v1/inventory?gpu_type=h100", HTTP_IF_NONE_MATCH=tag).status_code == 200
    menu.take_off("fake-2", virtual.now())
    assert alice.get("/api/v1/inventory?gpu_type=rtx4090", HTTP_IF_NONE_MATCH=tag).status_code == 200


def test_going_stale_changes_the_tag(alice: APIClient, provider: FakeProvider, virtual: FakeClock) -> None:
    tag = alice.get("/api/v1/inventory")["ETag"]
    virtual.advance(600)
    answer = alice.get("/api/v1/inventory", HTTP_IF_NONE_MATCH=tag)
    assert answer.status_code == 200
    assert answer.json()["as_of"]["fake"]["stale"] is True


def test_the_menu_says_how_old_it_is(alice: APIClient, provider: FakeProvider, virtual: FakeClock) -> None:
    provider.trouble["quotes"] = [Unavailable("no answer")]
    refresh.refresh("fake", even_if_not_due=True)
    as_of = alice.get("/api/v1/inventory").json()["as_of"]
    error = "The menu could not be read the last time; it is tried again."
    assert as_of == {"fake": {"fetched_at": "2026-01-29T12:00:00Z", "stale": False, "error": error}}


def test_one_offer_by_its_id(alice: APIClient, provider: FakeProvider) -> None:
    offer = alice.get("/api/v1/inventory/fake-2").json()
    assert offer["gpu_type"] == "RTX 4090"
    assert offer["price_per_hour"] == 0.35
    assert offer["price_parts"] == {"gpu": 0.35, "storage": 0.0, "cpu": 0.0, "ram": 0.0}
    assert alice.get("/api/v1/inventory/fake-99").status_code == 404


def test_it_needs_a_key(client: APIClient, db: None) -> None:
    answer = client.get("/api/v1/inventory")
    assert answer.status_code == 401
    assert answer.json()["error_type"] == "not_authenticated"
