"""Reading a provider's menu into rows. Never in a request; a failed or partial reading deletes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from inventory import selection
from inventory.gpus import normalise, vram_gb
from inventory.menu import REMEMBERED
from inventory.models import NANOS, Launch, Offer, Source
from providers import clock, registry
from providers.base import Provider, ProviderError, Quote, Unavailable

log = logging.getLogger(__name__)

DEFAULT_DISK_GB = 50
LEASE = timedelta(minutes=2)
FORGOTTEN_AFTER = timedelta(days=1)
_CHUNK = 500


def due(now: datetime) -> list[str]:
    """Providers whose menu wants to be read; each configured one has its row."""
    known = set(Source.objects.values_list("provider", flat=True))
    for name in registry.all():
        if name not in known:
            Source.objects.get_or_create(provider=name, defaults={"due_at": now})
    wanted = Source.objects.filter(_is_due(now), provider__in=list(registry.all()))
    return list(wanted.values_list("provider", flat=True))


def _is_due(now: datetime) -> Q:
    """Also if it waits for longer than anything does, since a clock that was ahead said when."""
    longest = max(settings.INVENTORY_CACHE_TTL, settings.INVENTORY_BACKOFF_TTL, LEASE)
    return Q(due_at__lte=now) | Q(due_at=None) | Q(due_at__gt=now + longest + timedelta(minutes=1))


def refresh(name: str, *, even_if_not_due: bool = False) -> bool:
    """Read one provider's menu; False if it was not due, somebody else reads it, or it could not be read."""
    now = clock.now()
    provider = registry.get(name)
    if provider is None:
        return False
    Source.objects.get_or_create(provider=name, defaults={"due_at": now})
    source = _claim(name, now, even_if_not_due)
    if source is None:
        return False
    try:
        quotes = provider.quotes(disk_gb=default_disk(provider))
    except ProviderError as error:
        _failed(source, error, now)
        return False
    _keep(provider, quotes, now)
    _write(source, fetched_at=now, tried_at=now, due_at=now + settings.INVENTORY_CACHE_TTL, failures=0, error="",
           offers=Offer.objects.filter(provider=name, listed=True).count())  # fmt: skip
    return True


def default_disk(provider: Provider) -> int:
    return max(DEFAULT_DISK_GB, provider.traits.min_disk_gb)


def _claim(name: str, now: datetime, even_if_not_due: bool) -> Source | None:
    row = Source.objects.get(provider=name)
    rows = Source.objects.filter(provider=name, revision=row.revision)
    if not even_if_not_due:
        rows = rows.filter(_is_due(now))
    taken = rows.update(due_at=now + LEASE, revision=F("revision") + 1)
    return row if taken else None


def _write(source: Source, **fields: object) -> None:
    Source.objects.filter(pk=source.pk).update(revision=F("revision") + 1, **fields)


def _failed(source: Source, error: ProviderError, now: datetime) -> None:
    """The old offers stay, and are shown as old; the next try comes later each time."""
    pause = min(settings.INVENTORY_BACKOFF_TTL, settings.INVENTORY_CACHE_TTL * 2 ** min(source.failures, 8))
    wait = error.retry_after if isinstance(error, Unavailable) else None
    if wait:
        pause = min(settings.INVENTORY_BACKOFF_TTL, max(pause, timedelta(seconds=wait)))
    _write(source, tried_at=now, failures=source.failures + 1, error=str(error)[:500], due_at=now + pause)
    log.warning("the menu of %s could not be read (%s); its old offers stay, next try in %d s",
                source.provider, error, pause.total_seconds())  # fmt: skip


def _keep(provider: Provider, quotes: Sequence[Quote], now: datetime) -> None:
    learnt = _learnt(provider.name, now)
    offers = [offer for quote in quotes if (offer := _offer(provider, quote, learnt, now))]
    unique = list({offer.pk: offer for offer in offers}.values())
    fields = [field.name for field in Offer._meta.concrete_fields if not field.primary_key]
    for start in range(0, len(unique), _CHUNK):
        with transaction.atomic():
            Offer.objects.bulk_create(
                unique[start : start + _CHUNK], update_conflicts=True, unique_fields=["id"], update_fields=fields
            )
    with transaction.atomic():
        missing = Offer.objects.filter(provider=provider.name, fetched_at__lt=now)
        missing.filter(listed=True).update(listed=False)
        missing.filter(fetched_at__lt=now - FORGOTTEN_AFTER).delete()
        Launch.objects.filter(at__lt=now - REMEMBERED).delete()


Learnt = Mapping[tuple[str, str], list[bool]]


def _learnt(provider: str, now: datetime) -> Learnt:
    """Outcomes of our launches by ("host", host) and ("offer", provider_id)."""
    found: dict[tuple[str, str], list[bool]] = {}
    tried = Launch.objects.filter(provider=provider, at__gt=now - REMEMBERED)
    for host, quote, success in tried.values_list("host", "provider_id", "success"):
        for key in _keys(host, quote):
            found.setdefault(key, []).append(success)
    return found


def _keys(host: str, quote: str) -> Iterator[tuple[str, str]]:
    yield ("host", host) if host else ("offer", quote)


def _offer(provider: Provider, quote: Quote, learnt: Learnt, now: datetime) -> Offer | None:
    """The row for a quote; None where a part of its price is not known, since it would look too cheap."""
    disk_gb = max(DEFAULT_DISK_GB, provider.traits.min_disk_gb, quote.min_disk_gb)
    parts = quote.rates.parts(disk_gb)
    if parts is None or parts.total <= 0:
        return None
    key = next(_keys(quote.host, quote.provider_id))
    believed = selection.confidence(quote.reliability, learnt.get(key, ()))
    gpu_type = normalise(quote.gpu_name)
    vram = quote.vram_gb or vram_gb(gpu_type)
    return Offer(
        id=f"{provider.name}-{quote.provider_id}", provider=provider.name, provider_id=quote.provider_id,
        provider_gpu_name=quote.gpu_name, gpu_type=gpu_type, gpu_count=quote.gpu_count, vram_gb=vram,
        price=parts.total, gpu_price=parts.gpu, cpu_price=parts.cpu, ram_price=parts.ram, storage_price=parts.storage,
        storage_nanos=round((quote.rates.storage_per_gb or 0) * NANOS),
        location=quote.location[:120], country=quote.country[:2].upper(), reliability=quote.reliability,
        confidence=believed, value=selection.value(vram, quote.gpu_count, parts.total, believed),
        available=quote.available, interruptible=quote.interruptible, max_duration_hours=quote.max_duration_hours,
        cuda_version=quote.cuda_version, cuda_order=selection.cuda_order(quote.cuda_version),
        cpu_cores=quote.cpu_cores, ram_gb=quote.ram_gb, disk_gb=quote.disk_gb,
        min_disk_gb=max(quote.min_disk_gb, provider.traits.min_disk_gb),
        internet_mbps_down=quote.internet_mbps_down, host=quote.host, listed=True, fetched_at=now,
    )  # fmt: skip
