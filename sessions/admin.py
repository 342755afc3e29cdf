"""Operators' view: everything readable, nothing writable but by the controller's own verbs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from providers import clock, registry
from providers.base import Traits
from providers.money import dollars
from rest.admin import ReadOnly, ReadOnlyInline, actor, ask, confirmed, counted
from rest.errors import Problem
from sessions import controller, gates, lifecycle, machines, next_step, outlets, shapes
from sessions.lifecycle import LIVE, Reason, State
from sessions.models import Account, Counter, Event, Heartbeat, Instance, Reply, Session, Stranger
from sessions.rows import with_said

STATUS_COLOURS = {
    "pending": "info", "provisioning": "info", "running": "success", "stopping": "warning", "failed": "danger",
    "launching": "info", "booting": "info", "destroying": "warning",
}  # fmt: skip

MOST_HOURS = 744.0


def reason_of(row: Session | Instance) -> str:
    note = with_said(row.end_note, row.end_said)
    return f"{row.end_reason.replace('_', ' ')}{': ' + note if note else ''}" if row.end_reason else ""


class Timeline(ReadOnlyInline):
    model = Event
    fields = ["at", "kind", "message", "said", "actor"]
    readonly_fields = fields
    ordering = ["-id"]
    verbose_name_plural = "Timeline"


class Machines(ReadOnlyInline):
    model = Instance
    fields = ["provider", "machine_id", "state", "end_reason", "created_at", "ended_at"]
    readonly_fields = fields
    ordering = ["created_at"]
    show_change_link = True
    verbose_name_plural = "Machines"


# --- Sessions -------------------------------------------------------------------------------------------------


class ExtendForm(forms.Form):
    hours = forms.FloatField(
        min_value=0.01, max_value=MOST_HOURS, initial=1, label="Hours to add", widget=UnfoldAdminDecimalFieldWidget
    )
    override = forms.BooleanField(required=False, label="Beyond the hard maximum", widget=UnfoldBooleanWidget)
    reason = forms.CharField(
        required=False, max_length=300, label="Why", help_text="Recorded; needed beyond the hard maximum.",
        widget=UnfoldAdminTextInputWidget,
    )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if said.get("override") and not said.get("reason", "").strip():
            self.add_error("reason", "Say why it may go beyond the hard maximum.")
        return said


class SessionsWithCosts(ChangeList):
    """The costs of a whole page with one question."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        costs = outlets.costs_of([session.pk for session in self.result_list], clock.now())
        for session in self.result_list:
            session.cost_micros = costs.get(session.pk, 0)


@admin.register(Session)
class SessionAdmin(ReadOnly):
    list_display = ["short_id", "consumer", "shown_status", "gpu", "provider", "hourly", "cost", "expires_at", "why"]
    list_filter = ["status", "provider", "end_reason", "gpu_type"]
    search_fields = ["id", "consumer", "offer_id"]
    search_help_text = "Session id, consumer or offer"
    date_hierarchy = "created_at"
    inlines = [Timeline, Machines]
    actions = ["end_sessions", "extend_sessions"]
    fieldsets = [
        (None, {"fields": ["id", "consumer", "shown_status", "next_step", "waiting_for", "why", "workload_type"]}),
        ("Wished for", {"fields": ["provider", "offer_id", "gpu", "hourly", "disk_gb", "reservation", "idle_threshold",
                                   "auto_retry", "max_retries", "retry_scope", "criteria"]}),
        ("When", {"fields": ["created_at", "started_at", "running_at", "expires_at", "hard_deadline", "wished_at",
                             "stopped_at", "due_at", "cost"]}),
    ]  # fmt: skip

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SessionsWithCosts

    def verbs_for(self, obj: Session) -> list[str]:
        return ["end_sessions", "extend_sessions"] if obj.status in LIVE else []

    @display(description="session", ordering="id")
    def short_id(self, session: Session) -> str:
        return session.pk.hex[:8]

    @display(description="status", ordering="status", label=STATUS_COLOURS)
    def shown_status(self, session: Session) -> str:
        return session.status

    @display(description="GPU", ordering="gpu_type")
    def gpu(self, session: Session) -> str:
        return f"{session.gpu_count} × {session.gpu_type} ({session.vram_gb} GB)"

    @display(description="per hour", ordering="price")
    def hourly(self, session: Session) -> str:
        return dollars(session.price)

    @display(description="cost so far")
    def cost(self, session: Session) -> str:
        known = getattr(session, "cost_micros", None)
        return dollars(outlets.costs_of([session.pk], clock.now()).get(session.pk, 0) if known is None else known)

    @display(description="ended because", ordering="end_reason")
    def why(self, session: Session) -> str:
        return reason_of(session)

    @display(description="next step")
    def next_step(self, session: Session) -> str:
        return next_step.of_session(session, clock.now())

    @action(description="End …")
    def end_sessions(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        live = queryset.filter(status__in=LIVE)
        if not live:
            messages.warning(request, "None of the chosen sessions is live: there is nothing to end.")
            return None
        if not confirmed(request):
            return ask(
                request, self, live, action="end_sessions", title=f"End {counted(len(live), 'live session')}?",
                warning="Their machines are destroyed, with everything on their disks. There is no way back.",
                lines=[_line(session) for session in live], button=f"End {counted(len(live), 'session')}",
            )  # fmt: skip
        now, who = clock.now(), actor(request)
        ended = sum(controller.wish_end(session.pk, Reason.DELETED, now, actor=who) for session in live)
        text = f"The end of {counted(ended, 'session')} is wished; each is stopped when its absence is proven."
        messages.success(request, text)
        return None

    @action(description="Extend …")
    def extend_sessions(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        live = queryset.filter(status__in=LIVE)
        if not live:
            messages.warning(request, "None of the chosen sessions is live: there is nothing to extend.")
            return None
        form = ExtendForm(request.POST if confirmed(request) else None)
        if not form.is_valid():
            most = settings.HARD_MAX.total_seconds() / 3600
            return ask(
                request, self, live, action="extend_sessions", title=f"Extend {counted(len(live), 'session')}",
                warning=f"The deadline moves, and the bill with it. The hard maximum is {most:g} h in all.",
                lines=[_line(session) for session in live], button="Extend", form=form,
            )  # fmt: skip
        said = form.cleaned_data
        why = said["reason"].strip() if said["override"] else ""
        for session in live:
            _extend(request, session, timedelta(hours=said["hours"]), why)
        return None


def _line(session: Session) -> str:
    until = f"until {session.expires_at:%Y-%m-%d %H:%M} UTC" if session.expires_at else "not launched yet"
    return (f"{session.pk.hex[:8]} of {session.consumer}: {session.gpu_count} × {session.gpu_type} at "
            f"{session.provider}, {session.status}, {until}")  # fmt: skip


def _extend(request: HttpRequest, session: Session, span: timedelta, why: str) -> None:
    name = session.pk.hex[:8]
    try:
        extended = controller.extend(session.pk, span, clock.now(), actor=actor(request), override_reason=why)
    except controller.OverHardMaximum:
        messages.error(request, f"{name}: that passes the hard maximum. Tick “Beyond the hard maximum” and say why.")
    except Problem as problem:
        messages.error(request, f"{name}: {problem.detail}")
    else:
        if extended is None:
            messages.warning(request, f"{name} is not live any more.")
        else:
            until = extended.expires_at
            text = f"{name} runs until {until:%Y-%m-%d %H:%M} UTC." if until else f"{name} is extended."
            messages.success(request, text)


# --- Machines -------------------------------------------------------------------------------------------------


@admin.register(Instance)
class InstanceAdmin(ReadOnly):
    list_display = ["short_id", "provider", "machine_id", "shown_state", "machine_state", "why", "deadline", "seen_at",
                    "asks", "ended_at"]  # fmt: skip
    list_filter = ["state", "provider", "end_reason", ("adopted_at", admin.EmptyFieldListFilter)]
    search_fields = ["id", "machine_id", "tag", "session__id"]
    search_help_text = "Instance or session id, the provider's machine id, or the label"
    ordering = ["-created_at"]
    inlines = [Timeline]
    actions = ["end_adopted"]
    fieldsets = [
        (None, {"fields": ["id", "linked_session", "provider", "account", "machine_id", "tag", "shown_state",
                           "state_since", "next_step", "why", "adopted_at"]}),
        ("Facts", {"fields": ["launched_at", "refused_at", "looked_at", "seen_at", "asked_at", "denied_at", "misses",
                              "asks", "silence", "machine_state", "machine_status", "label_seen", "due_at",
                              "revision"]}),
        ("Deadlines", {"fields": ["deadline", "hard_deadline", "dead_man", "ended_at"]}),
        ("Offered and found", {"fields": ["offer_id", "gpu", "cuda_version", "disk_gb", "host", "hourly", "found"]}),
        ("Access", {"fields": ["addresses", "host_key", "probed_at", "probe_note", "verified_at", "verify_seconds",
                               "inspected_at", "idle_since"]}),
    ]  # fmt: skip

    def verbs_for(self, obj: Instance) -> list[str]:
        return ["end_adopted"] if _is_kept(obj) else []

    @display(description="instance", ordering="id")
    def short_id(self, row: Instance) -> str:
        return row.pk.hex[:8]

    @display(description="state", ordering="state", label=STATUS_COLOURS)
    def shown_state(self, row: Instance) -> str:
        return row.state

    @display(description="session")
    def linked_session(self, row: Instance) -> str:
        return session_link(row.session_id) if row.session_id else "none: nobody wished for it"

    @display(description="GPU")
    def gpu(self, row: Instance) -> str:
        return f"{row.gpu_count} × {row.gpu_type} ({row.vram_gb} GB)" if row.gpu_type else "not known"

    @display(description="per hour")
    def hourly(self, row: Instance) -> str:
        parts = ", ".join(f"{name} {dollars(micros)}" for name, micros in row.price_parts.items() if micros)
        return f"{dollars(row.price)} ({parts})" if parts else dollars(row.price)

    @display(description="found by nvidia-smi and df")
    def found(self, row: Instance) -> str:
        gpus = row.hardware.get("gpus", [])
        names = ", ".join(f"{gpu['name']} ({gpu['vram_mib']} MiB)" for gpu in gpus)
        rest = f"; CUDA {row.hardware.get('cuda_version', '?')}, driver {row.hardware.get('driver_version', '?')}"
        return names + rest if names else "not looked yet"

    @display(description="SSH")
    def addresses(self, row: Instance) -> str:
        if row.ssh_host:
            return f"{row.ssh_user}@{row.ssh_host}:{row.ssh_port}"
        return ", ".join(f"{t['user']}@{t['host']}:{t['port']} (not verified)" for t in row.ssh_targets)

    @display(description="ended because", ordering="end_reason")
    def why(self, row: Instance) -> str:
        return reason_of(row)

    @display(description="next step")
    def next_step(self, row: Instance) -> str:
        return next_step.of_instance(row, clock.now())

    @display(description="listings silent for")
    def silence(self, row: Instance) -> str:
        provider = registry.get(row.provider)
        facts = machines.facts_of(row, provider.traits if provider else Traits(), clock.now())
        return f"{lifecycle.silence(facts).total_seconds():.0f} s"

    @display(description="dead man's switch")
    def dead_man(self, row: Instance) -> str:
        told = shapes.dead_man(row)
        return f"{told['state']}, for {told['deadline']}" if told["deadline"] else str(told["state"])

    @action(description="End this adopted machine …")
    def end_adopted(self, request: HttpRequest, queryset: QuerySet[Instance]) -> HttpResponse | None:
        rows = [row for row in queryset if _is_kept(row)]
        if not rows:
            messages.warning(request, "Only machines that were adopted and run are ended here. One with a session is "
                             "ended by its session; one that is leaving needs nothing.")  # fmt: skip
            return None
        if not confirmed(request):
            return ask(
                request, self, queryset.filter(pk__in=[row.pk for row in rows]), action="end_adopted",
                title=f"End {counted(len(rows), 'adopted machine')}?",
                warning="After a lost database an adopted machine may be somebody's live one. It is destroyed, with "
                "everything on its disk.",
                lines=[f"Machine {row.machine_id} at {row.provider}, kept until {row.deadline:%Y-%m-%d %H:%M} UTC"
                       for row in rows],
                button=f"End {counted(len(rows), 'machine')}",
            )  # fmt: skip
        now, who = clock.now(), actor(request)
        ended = sum(controller.wish_end_of_instance(row, Reason.TEARDOWN, now, actor=who) for row in rows)
        messages.success(request, f"The end of {counted(ended, 'adopted machine')} is wished.")
        return None


def _is_kept(row: Instance) -> bool:
    return row.session_id is None and row.state == State.RUNNING


def session_link(pk: Any) -> str:
    return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>',
                       reverse("admin:gpu_sessions_session_change", args=[pk]), str(pk)[:8])  # fmt: skip


# --- Accounts and what is found there ---------------------------------------------------------------------------


@admin.register(Account)
class AccountAdmin(ReadOnly):
    list_display = ["provider", "looked_at", "listed", "failures", "error", "shown_brake"]
    actions = ["list_now", "release_brake"]
    fieldsets = [
        (None, {"fields": ["provider", "account", "balance_usd", "gate", "brake"]}),
        ("What its listings told", {"fields": ["looked_at", "listed", "tried_at", "failures", "error", "key",
                                               "identified_at", "due_at"]}),
    ]  # fmt: skip

    @display(description="our key", label={"rejected": "danger", "accepted": "success"})
    def key(self, account: Account) -> str:
        if account.unauthorized:
            return "rejected"
        return "accepted" if account.looked_at else "not tried yet"

    def verbs_for(self, obj: Account) -> list[str]:
        return ["list_now", "release_brake"] if obj.brake else ["list_now"]

    @display(description="brake", label={"applied": "danger"})
    def shown_brake(self, account: Account) -> str:
        return "applied" if account.brake else ""

    @display(description="balance")
    def balance_usd(self, account: Account) -> str:
        return "not told" if account.balance is None else dollars(account.balance)

    @display(description="creates")
    def gate(self, account: Account) -> str:
        why = gates.closed(account.provider, clock.now())
        return f"None now: {why}" if why else "May go on"

    @action(description="List the account now")
    def list_now(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        due = queryset.filter(provider__in=registry.all())
        for account in queryset.exclude(provider__in=registry.all()):
            messages.error(request, f"{account.provider}: no key for it is set, so it can't be listed.")
        if due.update(due_at=clock.now()):
            messages.success(request, "It is listed within a few seconds, if the engine is at work.")

    @action(description="Release the brake …")
    def release_brake(self, request: HttpRequest, queryset: QuerySet[Account]) -> HttpResponse | None:
        braked = queryset.exclude(brake="")
        if not braked:
            messages.warning(request, "No brake is applied there.")
            return None
        if not confirmed(request):
            return ask(
                request, self, braked, action="release_brake", title="Release the brake?",
                warning="Creates go on at once. Adopted machines stay until the deadlines in their labels, or until "
                "you end them on their own pages.",
                lines=[f"{account.provider}: {account.brake}" for account in braked], button="Release it",
            )  # fmt: skip
        for account in braked:
            controller.release_brake(account.provider, clock.now(), actor=actor(request))
        messages.success(request, "The brake is released.")
        return None


@admin.register(Stranger)
class StrangerAdmin(ReadOnly):
    list_display = ["provider", "machine_id", "shown_ownership", "label", "status", "first_seen_at", "seen_at"]
    list_filter = ["provider", "ownership"]
    search_fields = ["machine_id", "label"]

    @display(description="ownership", ordering="ownership", label={"suspect": "danger", "ours": "warning"})
    def shown_ownership(self, stranger: Stranger) -> str:
        return stranger.ownership


# --- What happened ------------------------------------------------------------------------------------------------


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ["at", "kind", "message", "said", "linked_session", "actor"]
    list_filter = ["kind"]
    search_fields = ["session__id", "instance__id", "message", "said"]
    date_hierarchy = "at"
    ordering = ["-id"]
    fields = ["at", "kind", "message", "said", "actor", "linked_session", "linked_instance", "data"]

    @display(description="session")
    def linked_session(self, event: Event) -> str:
        return session_link(event.session_id) if event.session_id else ""

    @display(description="instance")
    def linked_instance(self, event: Event) -> str:
        if event.instance_id is None:
            return ""
        page = reverse("admin:gpu_sessions_instance_change", args=[event.instance_id])
        return format_html('<a href="{}">{}</a>', page, str(event.instance_id)[:8])


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnly):
    list_display = ["name", "at", "age", "note"]

    @display(description="that is")
    def age(self, beat: Heartbeat) -> str:
        return next_step.distance(beat.at, clock.now())


@admin.register(Counter)
class CounterAdmin(ReadOnly):
    list_display = ["name", "label", "value"]
    list_filter = ["name"]
    ordering = ["name", "label"]


@admin.register(Reply)
class ReplyAdmin(ReadOnly):
    """First answers to POSTs with an `Idempotency-Key`. Their bodies hold private keys and are never shown."""

    list_display = ["consumer", "key", "status_code", "created_at"]
    search_fields = ["consumer", "key"]
    ordering = ["-created_at"]
    fields = ["consumer", "key", "status_code", "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Reply]:
        rows: QuerySet[Reply] = super().get_queryset(request)
        return rows.defer("body")
