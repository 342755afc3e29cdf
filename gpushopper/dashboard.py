"""The admin's first page, and what stands on every page of it.

What runs, what it burns, what ends next, how well we see the providers, and what needs a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, F, Q, Sum
from django.http import HttpRequest
from django.urls import reverse

from gpushopper import alarms, signals
from gpushopper.models import Alarm
from inventory.models import Source
from providers import clock, registry
from providers.money import dollars
from rest.admin import counted
from sessions import gates
from sessions.lifecycle import LIVE, MAY_EXIST, OVER, State, Status
from sessions.models import Account, Event, Instance, Session
from sessions.next_step import distance

ENDING_SHOWN = 12
EVENTS_SHOWN = 10


# --- Every page -------------------------------------------------------------------------------------------


def every_page(request: HttpRequest) -> dict[str, Any]:
    """Whether this is a sandbox, for everybody; how many alarms stand, for operators."""
    staff = request.user.is_active and request.user.is_staff
    return {
        "sandbox": settings.SANDBOX,
        "alarms_open": Alarm.objects.filter(over_at=None).count() if staff else 0,
        "utc_now": clock.now(),
    }


# What an operator looks at first stands first; what nobody put into a group comes last, by its app.
GROUPS: dict[str, dict[str, str]] = {
    "Now": {
        "gpu_sessions.session": "terminal", "gpu_sessions.instance": "memory", "gpu_sessions.account": "cloud",
        "gpu_sessions.stranger": "help", "gpushopper.alarm": "notifications", "gpu_sessions.event": "history",
    },
    "Money": {
        "costs.spending": "monitoring", "costs.budget": "savings", "costs.alert": "notification_important",
        "costs.usageinterval": "timer", "costs.billedcharge": "receipt_long", "costs.bill": "request_quote",
        "costs.balance": "account_balance", "costs.endpoint": "webhook", "costs.delivery": "outgoing_mail",
        "costs.mail": "mail",
    },
    "Menu": {"inventory.offer": "sell", "inventory.source": "storefront", "inventory.launch": "rocket_launch"},
    "Consumers": {"gpushopper.consumer": "group", "gpushopper.apikey": "key", "gpu_sessions.reply": "reply"},
    "Service": {
        "gpu_sessions.heartbeat": "cardiology", "gpushopper.pace": "speed", "gpu_sessions.counter": "numbers",
        "django_celery_beat.periodictask": "schedule", "auth.user": "person", "auth.group": "groups",
    },
}  # fmt: skip
HIDDEN = frozenset({"intervalschedule", "crontabschedule", "solarschedule", "clockedschedule"})


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: every model that this person may look at."""
    if not request.user.is_active or not request.user.is_staff:
        return []
    visible = {
        model._meta.label_lower: model
        for model, page in admin.site._registry.items()
        if page.has_module_permission(request) and page.has_view_permission(request)
    }
    overview = {"title": "Overview", "icon": "dashboard", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"items": [overview]}]
    placed: set[str] = set()
    for title, icons in GROUPS.items():
        items = [_link(visible[label], icon) for label, icon in icons.items() if label in visible]
        placed |= icons.keys()
        groups += _group(title, items)
    rest: dict[str, list[dict[str, Any]]] = {}
    for label, model in visible.items():
        if label not in placed and model._meta.model_name not in HIDDEN:
            rest.setdefault(str(model._meta.app_config.verbose_name), []).append(_link(model, "table_rows"))
    for title, items in rest.items():
        groups[-1:-1] = _group(title, items)
    return groups


def _group(title: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"title": title, "separator": True, "items": items}] if items else []


def _link(model: Any, icon: str) -> dict[str, Any]:
    meta = model._meta
    name = str(meta.verbose_name_plural)
    return {
        "title": name[0].upper() + name[1:],
        "icon": icon,
        "link": reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist"),
    }


# --- The first page ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tile:
    title: str
    value: str
    note: str = ""
    link: str = ""
    mood: str = ""  # "", good, bad


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    now = clock.now()
    alive = Session.objects.exclude(status__in=OVER)
    context.update(
        now=now,
        title="Overview",
        alarms=_alarms(now),
        tiles=_tiles(now),
        ending=[
            _ending(session, now)
            for session in alive.order_by(F("expires_at").asc(nulls_last=True), "created_at")[:ENDING_SHOWN]
        ],
        more=max(0, alive.count() - ENDING_SHOWN),
        providers=list(_providers(now)),
        events=Event.objects.select_related("session", "instance").order_by("-id")[:EVENTS_SHOWN],
    )
    return context


def _alarms(now: datetime) -> list[dict[str, Any]]:
    since = {(row.name, row.subject): row.raised_at for row in Alarm.objects.filter(over_at=None)}
    return [
        {
            "title": trouble.name.replace("_", " "), "trouble": trouble, "link": _page_of(trouble),
            "since": f"{since[trouble.key]:%H:%M} UTC, {distance(since[trouble.key], now)}"
            if trouble.key in since else "",
        }
        for trouble in alarms.current(now)
    ]  # fmt: skip


def _page_of(trouble: alarms.Trouble) -> str:
    """Where to act on it."""
    if trouble.instance is not None:
        return reverse("admin:gpu_sessions_instance_change", args=[trouble.instance.pk])
    if trouble.name == "suspect_label":
        return reverse("admin:gpu_sessions_stranger_changelist")
    if trouble.provider and Account.objects.filter(provider=trouble.provider).exists():
        return reverse("admin:gpu_sessions_account_change", args=[trouble.provider])
    return ""


def burning() -> dict[str, int]:
    """Micro-dollars per hour of every machine that may exist, by provider."""
    rows = Instance.objects.filter(state__in=MAY_EXIST).exclude(machine_id="").order_by()
    return {provider: burn or 0 for provider, burn in rows.values_list("provider").annotate(burn=Sum("price"))}


def _tiles(now: datetime) -> list[Tile]:
    counts: dict[str, int] = dict(
        Session.objects.order_by().exclude(status__in=OVER).values_list("status").annotate(count=Count("pk"))
    )
    sessions = reverse("admin:gpu_sessions_session_changelist")
    machines = reverse("admin:gpu_sessions_instance_changelist")
    money = reverse("admin:costs_spending_changelist")
    live = sum(counts.get(status, 0) for status in LIVE)
    burn = sum(burning().values())
    leaving = Instance.objects.filter(state=State.DESTROYING).count()
    told = signals.lifecycle(now)
    return [
        Tile("Burning now", f"{dollars(burn)}/h", f"{dollars(burn * 24)} a day, if all of it stays", money),
        Tile("Live sessions", str(live), _counted(counts), f"{sessions}?status__exact=running"),
        Tile("Machines leaving", str(leaving), "until their absence is proven", f"{machines}?state__exact=destroying"),
        Tile("Engine", "at work" if told == signals.OK else "silent",
             "beat and workers, within three ticks" if told == signals.OK else told,
             reverse("admin:gpu_sessions_heartbeat_changelist"), "good" if told == signals.OK else "bad"),
    ]  # fmt: skip


def _counted(counts: dict[str, int]) -> str:
    words = [f"{counts[status]} {status}" for status in (*LIVE, Status.STOPPING) if counts.get(status)]
    return ", ".join(words) or "nothing runs"


def _ending(session: Session, now: datetime) -> dict[str, Any]:
    end = session.expires_at
    return {
        "session": session,
        "link": reverse("admin:gpu_sessions_session_change", args=[session.pk]),
        "hourly": f"{dollars(session.price)}/h",
        "ends": f"{end:%H:%M} UTC" if end else "not launched yet",
        "left": distance(end, now) if end else "",
    }


def _providers(now: datetime) -> Iterator[dict[str, Any]]:
    accounts = {account.provider: account for account in Account.objects.all()}
    sources = {source.provider: source for source in Source.objects.all()}
    enabled, burn = registry.all(), burning()
    machines = Instance.objects.filter(state__in=MAY_EXIST).order_by()
    ours = dict(machines.values_list("provider").annotate(count=Count("pk", filter=~Q(machine_id=""))))
    for name in sorted({*enabled, *burn}):
        account, source = accounts.get(name), sources.get(name)
        yield {
            "name": name,
            "link": reverse("admin:gpu_sessions_account_change", args=[name]) if account else "",
            **_sight(account, name in enabled, now),
            "ours": ours.get(name, 0),
            "listed": account.listed if account else 0,
            "burn": f"{dollars(burn.get(name, 0))}/h",
            "balance": dollars(account.balance) if account and account.balance is not None else "",
            "gate": gates.closed(name, now) if name in enabled else "no key is set",
            "menu": f"{counted(source.offers, 'offer')}, {distance(source.fetched_at, now)}"
            if source and source.fetched_at else "no menu yet",
        }  # fmt: skip


def _sight(account: Account | None, enabled: bool, now: datetime) -> dict[str, str]:
    """How well we see the account: a word, its colour, and the reason."""
    if not enabled:
        return {"sight": "no key", "mood": "danger", "why": "Nothing can be seen or destroyed there."}
    if account is None or account.looked_at is None:
        return {"sight": "never seen", "mood": "warning", "why": account.error if account else ""}
    seen = f"seen {distance(account.looked_at, now)}"
    if account.failures:
        return {"sight": seen, "mood": "danger", "why": account.error}
    blind = now - account.looked_at > alarms.blind_after()
    return {"sight": seen, "mood": "danger" if blind else "success", "why": ""}
