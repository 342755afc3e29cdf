"""The API's doors to the menu."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import QueryDict
from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from inventory import menu, selection
from inventory.models import Offer, Source
from providers import clock, registry
from providers.money import usd
from rest.access import principal
from rest.doors import Door
from rest.errors import not_found
from rest.params import Paged, Query, number


class Bounds(Query):
    """What an offer must be. An order by GPU type takes the same bounds."""

    provider = serializers.CharField(required=False, max_length=40)
    gpu_type = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=20,
        help_text="However it is written: RTX 4090, rtx4090, geforcertx4090-pcie-24gb. Repeatable: any of them.",
    )  # fmt: skip
    min_vram = serializers.IntegerField(min_value=0, max_value=10_000, required=False, help_text="GB of one GPU.")
    gpu_count = serializers.IntegerField(min_value=0, max_value=1024, required=False, help_text="At least.")
    min_gpu_count = serializers.IntegerField(min_value=0, max_value=1024, required=False, help_text="The same.")
    max_price = number(most="100000", required=False, help_text="USD per hour, for the whole machine.")
    min_reliability = number(most="1", required=False)
    min_availability_confidence = number(most="1", required=False)
    min_cuda = serializers.RegexField(r"\A\d{1,3}(\.\d{1,3})?\Z", required=False, help_text="Such as 12.4.")
    location = serializers.CharField(required=False, max_length=100, help_text="A part of it, in any case.")
    country = serializers.RegexField(r"\A[A-Za-z]{2}\Z", required=False, help_text="ISO 3166 alpha-2.")

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and not isinstance(data, QueryDict) and isinstance(data.get("gpu_type"), str):
            data = {**data, "gpu_type": [data["gpu_type"]]}
        return super().to_internal_value(data)

    def validate_provider(self, name: str) -> str:
        known = sorted(registry.all())
        if name not in known:
            raise serializers.ValidationError(f"No such provider. Known: {', '.join(known) or 'none is configured'}.")
        return name

    def validate_gpu_type(self, texts: list[str]) -> list[str]:
        if any(not text.strip() for text in texts):
            raise serializers.ValidationError("May not be empty.")
        return texts


class MenuQuery(Bounds, Paged):
    sort = serializers.ChoiceField(list(selection.SORTS), default="price_per_hour")


class PricePartsShape(serializers.Serializer[Any]):
    gpu = serializers.FloatField()
    storage = serializers.FloatField()
    cpu = serializers.FloatField()
    ram = serializers.FloatField()


class OfferShape(serializers.Serializer[Any]):
    id = serializers.CharField()
    provider = serializers.CharField()
    provider_id = serializers.CharField()
    gpu_type = serializers.CharField(help_text="Normalised.")
    gpu_count = serializers.IntegerField()
    vram_gb = serializers.IntegerField(help_text="Of one GPU.")
    price_per_hour = serializers.FloatField(
        help_text="USD, the whole machine as it would be rented with the default disk."
    )
    price_parts = PricePartsShape()
    location = serializers.CharField()
    country = serializers.CharField()
    reliability = serializers.FloatField(allow_null=True)
    availability_confidence = serializers.FloatField()
    available = serializers.BooleanField()
    interruptible = serializers.BooleanField()
    max_duration_hours = serializers.FloatField(help_text="0: no limit.")
    cuda_version = serializers.CharField()
    cpu_cores = serializers.IntegerField()
    ram_gb = serializers.IntegerField()
    disk_gb = serializers.IntegerField()
    internet_mbps_down = serializers.FloatField()
    fetched_at = serializers.DateTimeField()
    sandbox = serializers.BooleanField(required=False, help_text="Present and true: a stand-in, nothing real.")


class AsOf(serializers.Serializer[Any]):
    fetched_at = serializers.DateTimeField(allow_null=True)
    stale = serializers.BooleanField()
    error = serializers.CharField(allow_null=True, help_text="To operators in the provider's own words.")


class MenuShape(serializers.Serializer[Any]):
    offers = OfferShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()
    as_of = serializers.DictField(child=AsOf(), help_text="By provider.")


class Menu(Door):
    queries = {"GET": MenuQuery}

    @extend_schema(
        parameters=[MenuQuery, OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER)],
        responses={200: MenuShape, 304: OpenApiResponse(description="Unchanged since that `ETag`.")},
    )
    def get(self, request: Request) -> Response:
        """What can be rented now."""
        now = clock.now()
        sources = {source.provider: source for source in Source.objects.filter(provider__in=list(registry.all()))}
        to_operator = principal(request).is_operator
        tag = etag(request, sources, now, to_operator=to_operator)
        query = self.query
        if is_known(tag, request.headers.get("If-None-Match", "")):
            return Response(status=304, headers={"ETag": tag, "Cache-Control": CACHE_CONTROL})
        fitting = menu.on_menu(menu.criteria(query))
        if query.get("max_price") == 0:
            fitting = fitting.none()
        page = fitting.order_by(*selection.SORTS[query["sort"]])
        shown = [offer_json(offer) for offer in page[query["offset"] : query["offset"] + query["limit"]]]
        body = {
            "offers": shown,
            "count": len(shown),
            "total": fitting.count(),
            "as_of": as_of(sources, now, to_operator=to_operator),
        }
        return Response(body, headers={"ETag": tag, "Cache-Control": CACHE_CONTROL})


CACHE_CONTROL = "private, no-cache"


def is_known(tag: str, if_none_match: str) -> bool:
    """Weakly compared (RFC 9110 13.1.2): proxies drop or add the `W/`."""
    given = parse_etags(if_none_match)
    return given == ["*"] or tag.removeprefix("W/") in [known.removeprefix("W/") for known in given]


def etag(request: Request, sources: dict[str, Source], now: datetime, *, to_operator: bool) -> str:
    """Changes whenever the answer would: each write to a source's offers moves the source's revision."""
    state = [(name, source.revision, source.is_stale(now)) for name, source in sorted(sources.items())]
    asked = (request.META.get("QUERY_STRING", ""), request.headers.get("Accept", ""), to_operator)
    digest = hashlib.sha256(repr((state, asked)).encode()).hexdigest()[:24]
    return f'W/"{digest}"'


NOT_READ = "The menu could not be read the last time; it is tried again."


def as_of(sources: dict[str, Source], now: datetime, *, to_operator: bool) -> dict[str, Any]:
    return {
        name: {
            "fetched_at": instant(sources[name].fetched_at) if name in sources else None,
            "stale": name not in sources or sources[name].is_stale(now),
            "error": _error(sources[name], to_operator) if name in sources else None,
        }
        for name in sorted(registry.all())
    }


def _error(source: Source, to_operator: bool) -> str | None:
    if not source.error:
        return None
    return source.error if to_operator else NOT_READ


class OneOffer(Door):
    @extend_schema(responses=OfferShape)
    def get(self, request: Request, offer_id: str) -> Response:
        offer = menu.find(offer_id) if "\0" not in offer_id else None  # PostgreSQL knows no such text
        if offer is None:
            raise not_found("offer on the menu now")
        return Response(offer_json(offer))


def instant(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _usd(micros: int) -> float:
    return float(usd(micros))


def offer_json(offer: Offer) -> dict[str, Any]:
    shown = {
        "id": offer.pk,
        "provider": offer.provider,
        "provider_id": offer.provider_id,
        "gpu_type": offer.gpu_type,
        "gpu_count": offer.gpu_count,
        "vram_gb": offer.vram_gb,
        "price_per_hour": _usd(offer.price),
        "price_parts": {
            "gpu": _usd(offer.gpu_price),
            "storage": _usd(offer.storage_price),
            "cpu": _usd(offer.cpu_price),
            "ram": _usd(offer.ram_price),
        },
        "location": offer.location,
        "country": offer.country,
        "reliability": offer.reliability,
        "availability_confidence": offer.confidence,
        "available": offer.available,
        "interruptible": offer.interruptible,
        "max_duration_hours": offer.max_duration_hours,
        "cuda_version": offer.cuda_version,
        "cpu_cores": offer.cpu_cores,
        "ram_gb": offer.ram_gb,
        "disk_gb": offer.disk_gb,
        "internet_mbps_down": offer.internet_mbps_down,
        "fetched_at": instant(offer.fetched_at),
    }
    return {**shown, "sandbox": True} if settings.SANDBOX else shown
