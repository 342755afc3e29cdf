"""The admin's first page: what runs, what it burns, and what needs a person until it no longer does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, Sum
from django.http import HttpRequest
from django.urls import reverse

from gpushopper import alarms, signals
from inventory.models import Source
from providers import clock, registry
from sessions.lifecycle import LIVE, MAY_EXIST, OVER
from sessions.models import Account, Instance, Session


@dataclass(frozen=True)
class Tile:
    title: str
    value: str
    note: str = ""
    link: str = ""


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    now = clock.now()
    context.update(
        sandbox=settings.SANDBOX,
        alarms=alarms.current(now),
        tiles=_tiles(now),
        running=Session.objects.exclude(status__in=OVER).order_by("expires_at")[:20],
        providers=_providers(now),
    )
    return context


def _tiles(now: datetime) -> list[Tile]:
    sessions = Session.objects.order_by()
    counts = dict(sessions.exclude(status__in=OVER).values_list("status").annotate(count=Count("pk")))
    burn = Instance.objects.filter(state__in=MAY_EXIST).exclude(machine_id="").aggregate(sum=Sum("price"))["sum"] or 0
    live = sum(counts.get(status, 0) for status in LIVE)
    return [
        Tile("Live sessions", str(live), f"{counts.get('running', 0)} running",
             f"{reverse('admin:gpu_sessions_session_changelist')}?status__exact=running"),
        Tile("Being destroyed", str(counts.get("stopping", 0)), "until their absence is proven",
             f"{reverse('admin:gpu_sessions_session_changelist')}?status__exact=stopping"),
        Tile("Burning now", f"${burn / 1_000_000:,.2f}/h", "every machine that may exist",
             reverse("admin:gpu_sessions_instance_changelist")),
        Tile("Engines", signals.lifecycle(now), "beat and workers"),
    ]  # fmt: skip


def _providers(now: datetime) -> list[dict[str, Any]]:
    accounts = {account.provider: account for account in Account.objects.all()}
    sources = {source.provider: source for source in Source.objects.all()}
    return [
        {
            "name": name,
            "looked_at": accounts[name].looked_at if name in accounts else None,
            "listed": accounts[name].listed if name in accounts else 0,
            "error": accounts[name].error if name in accounts else "",
            "menu_at": sources[name].fetched_at if name in sources else None,
        }
        for name in sorted(registry.all())
    ]
