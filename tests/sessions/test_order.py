"""What an order by GPU type comes to, and what is taken when its first offer turns out unusable."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from inventory import refresh
from providers import registry
from providers.base import Quote, Rates, Refusal, Refused
from sessions.models import Session
from tests.fakes import Engine, FakeProvider, quote

pytestmark = pytest.mark.django_db

BY_TYPE = {"gpu_type": "RTX 4090", "reservation_hours": 1}
EVERYTHING = {"image": "ubuntu", "template_hash_id": "abc", "onstart": "ls", "env": {"A": "1"}}
TAKES_ALL = dict.fromkeys(("takes_image", "takes_template", "takes_onstart", "takes_env"), True)
TAKES_NOTHING = dict.fromkeys(TAKES_ALL, False)


def costing(number: str, usd: str, **said: Any) -> Quote:
    return quote(number, rates=Rates(gpu=Decimal(usd), storage_per_gb=Decimal("0.0002")), **said)


def configure(*providers: FakeProvider) -> None:
    registry.use({provider.name: provider for provider in providers})
    for provider in providers:
        refresh.refresh(provider.name, even_if_not_due=True)


def asked(client: APIClient, **wishes: Any) -> Any:
    return client.post("/api/v1/sessions", {**BY_TYPE, **wishes})


def rent(client: APIClient, **wishes: Any) -> Session:
    answer = asked(client, **wishes)
    assert answer.status_code == 201, answer.content
    return Session.objects.get(pk=answer.json()["session"]["id"])


# --- What is passed on to the machine -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("others_cost", ["0.10", "0.90"])
def test_an_order_goes_to_who_can_take_what_is_passed_on(
    alice: APIClient, engine: Engine, name: str, others_cost: str
) -> None:
    takes = FakeProvider("takes", [costing("1", "0.40")], **TAKES_ALL)
    takes_nothing = FakeProvider("other", [costing("1", others_cost), costing("2", others_cost)], **TAKES_NOTHING)
    configure(takes, takes_nothing)
    assert rent(alice, **{name: EVERYTHING[name]}).offer_id == "takes-1"


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_no_fitting_provider_can_take_is_named(alice: APIClient, engine: Engine, name: str) -> None:
    takes = FakeProvider("takes", [quote("1", gpu_name="RTX 3090")], **TAKES_ALL)
    configure(takes, FakeProvider("other", [quote("1")], **TAKES_NOTHING))
    answer = asked(alice, **{name: EVERYTHING[name]})
    assert answer.status_code == 400
    assert answer.json()["fields"] == {name: ["other can't take it."]}


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_retry_stays_with_who_can_take_what_is_passed_on(alice: APIClient, engine: Engine, name: str) -> None:
    takes = FakeProvider("takes", [costing("1", "0.30"), costing("2", "0.50")], **TAKES_ALL)
    takes_nothing = FakeProvider("other", [costing("3", "0.10")], **TAKES_NOTHING)
    configure(takes, takes_nothing)
    takes.trouble["create"] = [Refused("gone", why=Refusal.OFFER_GONE)]
    session = rent(alice, **{name: EVERYTHING[name]})
    engine.run(120)
    session.refresh_from_db()
    assert (session.offer_id, session.status) == ("takes-2", "running")
    assert takes_nothing.count("create") == 0


def test_a_retry_with_nothing_to_pass_on_goes_anywhere(alice: APIClient, engine: Engine) -> None:
    takes_nothing = FakeProvider("other", [costing("3", "0.31")], **TAKES_NOTHING)
    takes = FakeProvider("takes", [costing("1", "0.30"), costing("2", "0.50")], **TAKES_ALL)
    configure(takes, takes_nothing)
    takes.trouble["create"] = [Refused("gone", why=Refusal.OFFER_GONE)]
    rent(alice)
    engine.run(120)
    assert takes_nothing.count("create") == 1


# --- What it may cost ---------------------------------------------------------------------------------------------

DISK = {"disk_gb": 400}  # 0.08 USD/h; the menu's price has the default disk in it, 0.01 USD/h


def test_the_limits_hold_for_the_price_with_the_disk_that_is_rented(alice: APIClient, engine: Engine) -> None:
    configure(FakeProvider("fake", [costing("1", "0.40")]))
    for limit in ("max_price", "max_price_per_hour"):
        assert asked(alice, **DISK, **{limit: 0.42}).json()["error_type"] == "no_offer", limit
    assert rent(alice, max_price=0.48, **DISK).price == 480_000


def test_the_lower_of_the_two_limits_holds(alice: APIClient, engine: Engine) -> None:
    configure(FakeProvider("fake", [costing("1", "0.40")]))
    assert asked(alice, max_price=0.4, max_price_per_hour=9).status_code == 409
    assert asked(alice, max_price=9, max_price_per_hour=0.4).status_code == 409


def test_a_retry_keeps_to_max_price_with_its_disk(alice: APIClient, engine: Engine) -> None:
    provider = FakeProvider("fake", [costing("1", "0.40"), costing("2", "0.45"), costing("3", "0.46", disk_gb=40)])
    configure(provider)
    provider.trouble["create"] = [Refused("gone", why=Refusal.OFFER_GONE)]
    session = rent(alice, max_price=0.5, **DISK)
    engine.run(120)
    session.refresh_from_db()
    assert (session.end_reason, provider.count("create")) == ("no_offer", 1)
