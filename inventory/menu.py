"""What the other apps ask of the menu."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F

from inventory import selection
from inventory.models import Launch, Offer, Source
from inventory.selection import Criteria, criteria
from providers import registry

__all__ = ["PASSED_ON", "choose", "criteria", "find", "next_fitting", "on_menu", "record_attempt", "take_off", "takers"]

# What a session may pass on to its machine, and the trait of a provider that takes it.
PASSED_ON = {
    "image": "takes_image",
    "template_hash_id": "takes_template",
    "env": "takes_env",
    "onstart": "takes_onstart",
}


def on_menu(wanted: Criteria) -> Any:
    """A query of what fits and can be rented now, at providers that are configured."""
    return Offer.objects.filter(selection.fitting(wanted), provider__in=list(registry.all()))


def find(offer_id: str) -> Offer | None:
    found: Offer | None = on_menu(Criteria()).filter(pk=offer_id).first()
    return found


def takers(passed_on: Collection[str]) -> list[str]:
    """The providers that can take all of it."""
    wanted = [PASSED_ON[name] for name in passed_on]
    return [name for name, adapter in registry.all().items() if all(getattr(adapter.traits, w) for w in wanted)]


def choose(
    wanted: Criteria,
    *,
    now: datetime,
    passed_on: Collection[str] = (),
    exclude_providers: Collection[str] = (),
    exclude_offers: Sequence[str] = (),
    exclude_hosts: Sequence[str] = (),
    hours: float = 0,
    limit: int = 50,
) -> list[Offer]:
    """The cheapest fitting offers that last for so many hours, without those on which a launch has failed lately."""
    fitting = on_menu(wanted).filter(provider__in=takers(passed_on)).exclude(pk__in=exclude_offers)
    fitting = fitting.exclude(provider__in=exclude_providers)
    fitting = fitting.exclude(max_duration_hours__gt=0, max_duration_hours__lt=hours)
    if exclude_hosts:
        fitting = fitting.exclude(host__in=exclude_hosts)
    failed = Launch.objects.filter(success=False, at__gt=now - timedelta(seconds=selection.AVOID_SECONDS))
    bad = {(provider, quote) for provider, quote in failed.values_list("provider", "provider_id")}
    cheapest = fitting.order_by(*selection.SORTS["price_per_hour"])[: limit + len(bad)]
    return [offer for offer in cheapest if (offer.provider, offer.provider_id) not in bad][:limit]


def next_fitting(
    bounds: Mapping[str, Any], *, scope: str, gpu_type: str, gpu_count: int, vram_gb: int, disk_gb: int,
    hours: float, max_price: int | None, exclude_offers: Sequence[str], exclude_hosts: Sequence[str], now: datetime,
    passed_on: Collection[str] = (), exclude_providers: Collection[str] = (),
) -> Offer | None:  # fmt: skip
    """The next offer for a session whose last attempt came to nothing.

    `scope`: `same_gpu`, `same_vram` (at least as much), or `any` (within the session's own bounds).
    `passed_on`: what the session brings along; a provider that can't take it would leave it out in silence.
    Each limit holds for the price with the session's disk.
    """
    wider = dict(bounds)
    if scope != "any":
        wider["gpu_count"] = max(gpu_count, wider.get("gpu_count") or 0)
    if scope == "same_gpu":
        wider["gpu_type"] = [gpu_type]
    else:
        wider.pop("gpu_type", None)
    if scope == "same_vram":
        wider["min_vram"] = max(vram_gb, wider.get("min_vram") or 0)
    wanted = criteria(wider)
    offers = choose(
        wanted, now=now, passed_on=passed_on, exclude_providers=exclude_providers, exclude_offers=exclude_offers,
        exclude_hosts=exclude_hosts, hours=hours, limit=200,
    )  # fmt: skip
    priced = [(offer.price_for(disk_gb).total, offer.pk, offer) for offer in offers if _has_room(offer, disk_gb)]
    limits = [limit for limit in (max_price, wanted.max_price) if limit is not None]
    affordable = [entry for entry in priced if all(entry[0] <= limit for limit in limits)]
    return min(affordable)[2] if affordable else None


def _has_room(offer: Offer, disk_gb: int) -> bool:
    return offer.min_disk_gb <= disk_gb and (not offer.disk_gb or disk_gb <= offer.disk_gb)


def take_off(offer_id: str, now: datetime) -> None:
    """The provider says that it is gone: off the menu until the next listing shows it again."""
    if Offer.objects.filter(pk=offer_id).update(available=False):
        _changed(offer_id)


def record_attempt(*, provider: str, provider_id: str, host: str, success: bool, now: datetime) -> None:
    """A launch has worked, or not: the confidence in its offer and in its host's other offers follows."""
    Launch.objects.create(provider=provider, provider_id=provider_id, host=host, success=success, at=now)
    rows = Offer.objects.filter(provider=provider)
    for offer in rows.filter(host=host) if host else rows.filter(provider_id=provider_id):
        believed = selection.confidence(offer.reliability, outcomes_of(offer, now))
        Offer.objects.filter(pk=offer.pk).update(
            confidence=believed, value=selection.value(offer.vram_gb, offer.gpu_count, offer.price, believed)
        )
    Source.objects.filter(provider=provider).update(revision=F("revision") + 1)


REMEMBERED = timedelta(hours=24)


def outcomes_of(offer: Offer, now: datetime) -> list[bool]:
    tried = Launch.objects.filter(provider=offer.provider, at__gt=now - REMEMBERED)
    tried = tried.filter(host=offer.host) if offer.host else tried.filter(provider_id=offer.provider_id)
    return list(tried.values_list("success", flat=True))


def _changed(offer_id: str) -> None:
    provider = Offer.objects.filter(pk=offer_id).values_list("provider", flat=True).first()
    Source.objects.filter(provider=provider).update(revision=F("revision") + 1)
