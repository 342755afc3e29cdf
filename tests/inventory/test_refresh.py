from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from inventory import menu, refresh
from inventory.models import Offer, Source
from inventory.selection import Criteria
from providers import registry
from providers.base import NotUnderstood, Rates, Unavailable
from tests.fakes import FakeClock, FakeProvider, quote

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider(virtual: FakeClock) -> FakeProvider:
    fake = FakeProvider(quotes=[quote("1"), quote("2", rates=Rates(gpu=Decimal("0.30")))])
    registry.use({"fake": fake})
    return fake


def on_menu() -> list[str]:
    return [offer.pk for offer in menu.on_menu(Criteria()).order_by("price", "id")]


def test_a_refresh_puts_the_quotes_on_the_menu(provider: FakeProvider) -> None:
    assert refresh.refresh("fake")
    assert on_menu() == ["fake-2", "fake-1"]
    assert Offer.objects.get(pk="fake-1").price == 400_000 + 10_000, "50 GB of disk are in the price"


def test_it_is_not_read_again_before_its_time(provider: FakeProvider, virtual: FakeClock) -> None:
    refresh.refresh("fake")
    assert not refresh.refresh("fake")
    virtual.advance(61)
    assert refresh.refresh("fake")
    assert provider.count("quotes") == 2


@pytest.mark.parametrize("error", [Unavailable("no answer"), NotUnderstood("half a list")])
def test_a_reading_that_failed_deletes_nothing(provider: FakeProvider, virtual: FakeClock, error: Exception) -> None:
    refresh.refresh("fake")
    virtual.advance(61)
    provider.trouble["quotes"] = [error]
    assert not refresh.refresh("fake")
    assert on_menu() == ["fake-2", "fake-1"]
    assert Source.objects.get().error == str(error)


def test_failures_back_off_up_to_five_minutes(provider: FakeProvider, virtual: FakeClock) -> None:
    provider.trouble["quotes"] = [Unavailable("no answer")] * 9
    pauses = []
    for _ in range(5):
        refresh.refresh("fake", even_if_not_due=True)
        due_at = Source.objects.get().due_at
        assert due_at is not None
        pauses.append((due_at - virtual.now()).total_seconds())
    assert pauses == [60, 120, 240, 300, 300]


def test_a_limiter_is_given_the_time_that_it_asks_for(provider: FakeProvider, virtual: FakeClock) -> None:
    provider.trouble["quotes"] = [Unavailable("slow down", retry_after=200)]
    refresh.refresh("fake")
    due_at = Source.objects.get().due_at
    assert due_at is not None and (due_at - virtual.now()).total_seconds() == 200


def test_what_a_complete_listing_lacks_leaves_the_menu(provider: FakeProvider, virtual: FakeClock) -> None:
    refresh.refresh("fake")
    provider.menu = [quote("1")]
    virtual.advance(61)
    refresh.refresh("fake")
    assert on_menu() == ["fake-1"]
    assert Offer.objects.filter(pk="fake-2", listed=False).exists(), "kept for a day"


def test_an_unknown_part_of_the_price_keeps_an_offer_off_the_menu(provider: FakeProvider) -> None:
    provider.menu = [quote("1", rates=Rates(gpu=Decimal("0.1"), ram=None))]
    refresh.refresh("fake")
    assert on_menu() == []


def test_two_readers_at_once_read_once(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the first one is still reading."""
    plain = provider.quotes

    def slow(*, disk_gb: int) -> object:
        assert not refresh.refresh("fake")
        return plain(disk_gb=disk_gb)

    monkeypatch.setattr(provider, "quotes", slow)
    assert refresh.refresh("fake")
    assert provider.count("quotes") == 1


def test_a_provider_without_a_key_shows_nothing(provider: FakeProvider) -> None:
    refresh.refresh("fake")
    registry.use({})
    assert on_menu() == []


def test_a_failed_launch_lowers_the_confidence_in_every_offer_of_the_host(
    provider: FakeProvider, virtual: FakeClock
) -> None:
    provider.menu = [quote("1", host="h"), quote("2", host="h"), quote("3", host="other")]
    refresh.refresh("fake")
    menu.record_attempt(provider="fake", provider_id="1", host="h", success=False, now=virtual.now())
    believed = dict(Offer.objects.values_list("pk", "confidence"))
    assert believed["fake-1"] == believed["fake-2"] < believed["fake-3"]
    assert [offer.pk for offer in menu.choose(Criteria(), now=virtual.now())] == ["fake-2", "fake-3"]
    virtual.advance(61)
    refresh.refresh("fake")
    assert Offer.objects.get(pk="fake-2").confidence == believed["fake-2"], "a refresh remembers it"


def test_an_offer_that_is_gone_is_off_until_the_next_listing(provider: FakeProvider, virtual: FakeClock) -> None:
    refresh.refresh("fake")
    menu.take_off("fake-2", virtual.now())
    assert on_menu() == ["fake-1"]
    virtual.advance(61)
    refresh.refresh("fake")
    assert on_menu() == ["fake-2", "fake-1"]


def test_the_next_offer_fits_the_scope_and_the_price(provider: FakeProvider, virtual: FakeClock) -> None:
    cheap = Rates(gpu=Decimal("0.10"))
    provider.menu = [
        quote("1"), quote("2"), quote("3", gpu_name="RTX 3090", rates=cheap),
        quote("4", gpu_name="RTX 3060", vram_gb=12, rates=cheap), quote("5", rates=Rates(gpu=Decimal("9"))),
        quote("6", rates=Rates(gpu=Decimal("0.01")), max_duration_hours=3.9),
    ]  # fmt: skip
    refresh.refresh("fake")

    def following(scope: str, **more: object) -> str | None:
        asked = {"gpu_type": "RTX 4090", "gpu_count": 1, "vram_gb": 24, "disk_gb": 50, "max_price": None, "hours": 4,
                 "exclude_offers": ["fake-1"], "exclude_hosts": [], "now": virtual.now(), **more}  # fmt: skip
        offer = menu.next_fitting({}, scope=scope, **asked)  # type: ignore[arg-type]
        return offer.pk if offer else None

    assert following("same_gpu") == "fake-2"
    assert following("same_vram") == "fake-3"
    assert following("any") == "fake-3"
    assert following("same_gpu", exclude_offers=["fake-1", "fake-2"], max_price=1_000_000) is None
    assert following("same_gpu", exclude_hosts=["host-2"]) == "fake-5"
    assert following("same_gpu", hours=3.9) == "fake-6", "the host says for how long it is to be had"


def test_a_menu_that_a_clock_a_day_ahead_put_to_sleep_is_read_again(virtual: FakeClock, provider: FakeProvider) -> None:
    refresh.refresh("fake")
    virtual.advance(86400)
    assert refresh.refresh("fake")
    virtual.instant -= timedelta(days=1)
    assert refresh.due(virtual.now()) == ["fake"]
    assert refresh.refresh("fake")
