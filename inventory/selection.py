"""Which offers fit, in which order, and how likely one is to work.

Pure but for building a query: `Criteria` are the menu's bounds, `fitting` says them to the database, so there
is one place in which each bound has its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q

from inventory.gpus import normalise
from providers.money import micros

# --- Bounds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """The menu's bounds. None or empty: no bound."""

    providers: tuple[str, ...] = ()
    gpu_types: tuple[str, ...] = ()  # normalised
    min_vram: int | None = None
    min_gpu_count: int | None = None
    max_price: int | None = None  # micro-dollars per hour
    min_reliability: float | None = None
    min_confidence: float | None = None
    min_cuda: int | None = None  # 1208 for 12.8
    location: str = ""
    country: str = ""


def criteria(bounds: Mapping[str, Any]) -> Criteria:
    """From the API's own names (`inventory.api.Bounds`), or the JSON that a session keeps of them."""
    max_price = bounds.get("max_price")
    counts = [bounds[name] for name in ("gpu_count", "min_gpu_count") if bounds.get(name) is not None]
    return Criteria(
        providers=(bounds["provider"],) if bounds.get("provider") else (),
        gpu_types=tuple(normalise(text) for text in bounds.get("gpu_type") or ()),
        min_vram=bounds.get("min_vram"),
        min_gpu_count=max(counts, default=None),
        max_price=None if max_price is None else micros(str(max_price)),
        min_reliability=bounds.get("min_reliability"),
        min_confidence=bounds.get("min_availability_confidence"),
        min_cuda=cuda_order(str(bounds["min_cuda"])) if bounds.get("min_cuda") else None,
        location=bounds.get("location") or "",
        country=bounds.get("country") or "",
    )


def fitting(wanted: Criteria) -> Q:
    """The bounds as the database reads them; what a host does not tell fails a bound on it."""
    q = Q(listed=True, available=True)
    if wanted.providers:
        q &= Q(provider__in=wanted.providers)
    if wanted.gpu_types:
        q &= Q(gpu_type__in=wanted.gpu_types)
    bounds: list[tuple[str, Any]] = [
        ("vram_gb__gte", wanted.min_vram),
        ("gpu_count__gte", wanted.min_gpu_count),
        ("price__lte", wanted.max_price),
        ("reliability__gte", wanted.min_reliability),
        ("confidence__gte", wanted.min_confidence),
        ("cuda_order__gte", wanted.min_cuda),
        ("location__icontains", wanted.location or None),
        ("country", wanted.country.upper() or None),
    ]
    for name, bound in bounds:
        if bound is not None:
            q &= Q(**{name: bound})
    return q


# Unknown comes last; left to themselves, PostgreSQL would put it first and SQLite last.
SORTS: dict[str, list[Any]] = {
    "price_per_hour": ["price", "id"],
    "-price_per_hour": ["-price", "id"],
    "-reliability": [F("reliability").desc(nulls_last=True), "id"],
    "-availability_confidence": ["-confidence", "id"],
    "-vram_gb": ["-vram_gb", "id"],
    "value": ["-value", "id"],
}


def cuda_order(version: str) -> int:
    """12.8 becomes 1208, so that versions compare as numbers; 0 if it is none."""
    major, _, minor = version.strip().partition(".")
    minor = minor.partition(".")[0]
    return int(major) * 100 + int(minor or 0) if major.isdigit() and (minor or "0").isdigit() else 0


# --- Confidence ---------------------------------------------------------------------------------------------

# Where a provider tells no reliability: how often a launch there works at all.
BASE_RATE = 0.85
# Two launches' worth of belief in the stated reliability; our own experience outweighs it soon.
PRIOR_WEIGHT = 2.0
# A host that failed for us is not offered again by type for this long.
AVOID_SECONDS = 15 * 60


def confidence(reliability: float | None, outcomes: Iterable[bool]) -> float:
    """The chance that a launch works, 0 to 1: the stated reliability, corrected by our own launches there."""
    prior = BASE_RATE if reliability is None else max(0.0, min(1.0, reliability))
    tried = list(outcomes)
    return round((prior * PRIOR_WEIGHT + sum(tried)) / (PRIOR_WEIGHT + len(tried)), 4)


def value(vram_gb: int, gpu_count: int, price: int, believed: float) -> float:
    """GB of VRAM for a dollar and hour, times the chance that it works."""
    return round(vram_gb * gpu_count * believed / (price / 1_000_000), 6) if price > 0 else 0.0
