"""Operators' view: everything readable, nothing writable but by the controller's own verbs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display

from providers import clock, registry
from providers.base import Traits
from rest.errors import Problem
from sessions import controller, lifecycle, shapes
from sessions.lifecycle import Reason, State
from sessions.models import Account, Event, Heartbeat, Instance, Session, Stranger

STATUS_COLOURS = {
    "pending": "info", "provisioning": "info", "running": "success", "stopping": "warning", "failed": "danger",
    "launching": "info", "booting": "info", "destroying": "warning",
}  # fmt: skip


class ReadOnly(ModelAdmin):
    """Rows are written by the service; people read them, and use the actions."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Timeline(TabularInline):
    model = Event
    fields = ["at", "kind", "message", "actor"]
    readonly_fields = fields
    ordering = ["-id"]
    extra = 0
    can_delete = False
    show_change_link = False
    tab = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Machines(TabularInline):
    model = Instance
    fields = ["provider", "machine_id", "state", "end_reason", "created_at", "ended_at"]
    readonly_fields = fields
    ordering = ["created_at"]
    extra = 0
    can_delete = False
    show_change_link = True
    tab = True

    has_add_permission = Timeline.has_add_permission
    has_change_permission = Timeline.has_change_permission


def usd_per_hour(micros: int) -> str:
    return f"${micros / 1_000_000:,.4f}"


def wording(action: Any) -> str:
    """A decision as a person reads it."""
    name = type(action).__name__
    if isinstance(action, lifecycle.Wait):
        return f"wait until {action.until:%H:%M:%S}" if action.until else "wait for a fact or a wish"
    reason = getattr(action, "reason", None)
    return f"{name}: {reason}" if reason else name


@admin.register(Session)
class SessionAdmin(ReadOnly):
    list_display = [
        "short_id",
        "consumer",
        "shown_status",
        "gpu",
        "provider",
        "hourly",
        "cost",
        "expires_at",
        "end_reason",
    ]
    list_filter = ["status", "provider", "end_reason", "gpu_type"]
    search_fields = ["id", "consumer", "offer_id"]
    date_hierarchy = "created_at"
    list_per_page = 50
    inlines = [Timeline, Machines]
    actions = ["end_sessions", "extend_by_an_hour"]
    fieldsets = [
        (None, {"fields": ["id", "consumer", "status", "waiting_for", "end_reason", "end_note", "next_step", "workload_type"]}),
        ("Wished for", {"fields": ["provider", "offer_id", "gpu", "hourly", "disk_gb", "reservation", "auto_retry",
                                   "max_retries", "retry_scope", "idle_threshold", "criteria"]}),
        ("When", {"fields": ["created_at", "started_at", "running_at", "expires_at", "hard_deadline", "wished_at",
                             "stopped_at", "due_at", "cost"]}),
    ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["gpu", "hourly", "cost", "next_step"]

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
        return usd_per_hour(session.price)

    @display(description="cost so far")
    def cost(self, session: Session) -> str:
        return f"${shapes.session_json(session)['cost_so_far']:,.4f}"

    @display(description="next step")
    def next_step(self, session: Session) -> str:
        attempts = [controller.attempt_of(row) for row in session.instances.order_by("created_at", "id")]
        return wording(lifecycle.decide_session(controller.wish_of(session), attempts, clock.now()))

    @action(description="End the chosen sessions")
    def end_sessions(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        now, who = clock.now(), f"admin {request.user.get_username()}"
        ended = sum(controller.wish_end(session.pk, Reason.DELETED, now, actor=who) for session in queryset)
        messages.success(request, f"The end of {ended} sessions is wished; they are stopped when it is proven.")

    @action(description="Extend by one hour")
    def extend_by_an_hour(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        who = f"admin {request.user.get_username()}"
        for session in queryset:
            try:
                extended = controller.extend(session.pk, timedelta(hours=1), clock.now(), actor=who)
            except controller.OverHardMaximum:
                messages.error(
                    request, f"{session.pk}: beyond the hard maximum; see manage.py extend_session --override."
                )
            except Problem as problem:
                messages.error(request, f"{session.pk}: {problem.detail}")
            else:
                if extended is None:
                    messages.warning(request, f"{session.pk} is not live any more.")
                else:
                    messages.success(request, f"{session.pk} runs an hour longer.")


@admin.register(Instance)
class InstanceAdmin(ReadOnly):
    list_display = ["short_id", "provider", "machine_id", "shown_state", "machine_state", "end_reason", "deadline",
                    "seen_at", "asks", "ended_at"]  # fmt: skip
    list_filter = ["state", "provider", "end_reason", ("adopted_at", admin.EmptyFieldListFilter)]
    search_fields = ["id", "machine_id", "tag", "session__id"]
    inlines = [Timeline]
    actions = ["end_adopted"]
    fieldsets = [
        (None, {"fields": ["id", "session", "provider", "account", "machine_id", "tag", "state", "state_since",
                           "next_step", "end_reason", "end_note", "adopted_at"]}),
        ("Facts", {"fields": ["launched_at", "refused_at", "looked_at", "seen_at", "asked_at", "denied_at", "misses",
                              "asks", "silence", "machine_state", "machine_status", "label_seen", "due_at", "revision"]}),
        ("Deadlines", {"fields": ["deadline", "hard_deadline", "dead_man", "ended_at"]}),
        ("Offered and found", {"fields": ["offer_id", "gpu_type", "gpu_count", "vram_gb", "cuda_version", "disk_gb",
                                          "host", "hourly", "price_parts", "hardware"]}),
        ("Access", {"fields": ["ssh_targets", "ssh_host", "ssh_port", "ssh_user", "host_key", "probed_at", "probe_note",
                               "verified_at", "verify_seconds", "inspected_at", "idle_since"]}),
    ]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["next_step", "silence", "hourly", "dead_man"]

    @display(description="instance", ordering="id")
    def short_id(self, row: Instance) -> str:
        return row.pk.hex[:8]

    @display(description="state", ordering="state", label=STATUS_COLOURS)
    def shown_state(self, row: Instance) -> str:
        return row.state

    @display(description="per hour")
    def hourly(self, row: Instance) -> str:
        return usd_per_hour(row.price)

    @display(description="next step")
    def next_step(self, row: Instance) -> str:
        traits = _traits(row)
        now = clock.now()
        return wording(lifecycle.decide(controller.facts_of(row, traits, now), controller.limits_of(traits), now))

    @display(description="listings silent for")
    def silence(self, row: Instance) -> str:
        return str(lifecycle.silence(controller.facts_of(row, _traits(row), clock.now())))

    @display(description="dead man's switch")
    def dead_man(self, row: Instance) -> str:
        told = shapes.dead_man(row)
        return f"{told['state']}{', for ' + told['deadline'] if told['deadline'] else ''}"

    @action(description="End machines that no session stands for")
    def end_adopted(self, request: HttpRequest, queryset: QuerySet[Instance]) -> None:
        now, who = clock.now(), f"admin {request.user.get_username()}"
        rows = queryset.filter(session=None, state=State.RUNNING)
        ended = sum(controller.wish_end_of_instance(row, Reason.TEARDOWN, now, actor=who) for row in rows)
        messages.success(request, f"The end of {ended} adopted machines is wished.")


def _traits(row: Instance) -> Traits:
    provider = registry.get(row.provider)
    return provider.traits if provider else Traits()


@admin.register(Account)
class AccountAdmin(ReadOnly):
    list_display = ["provider", "account", "looked_at", "listed", "failures", "error", "shown_brake"]
    actions = ["list_now", "release_brake"]

    @display(description="brake", label={"applied": "danger"})
    def shown_brake(self, account: Account) -> str:
        return "applied" if account.brake else ""

    @action(description="List the account now")
    def list_now(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        queryset.update(due_at=clock.now())
        messages.success(request, "It is being listed.")

    @action(description="Release the brake: creates may go on")
    def release_brake(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        for account in queryset.exclude(brake=""):
            controller.release_brake(account.provider, clock.now(), actor=f"admin {request.user.get_username()}")
        messages.success(request, "The brake is released.")


@admin.register(Stranger)
class StrangerAdmin(ReadOnly):
    list_display = ["provider", "machine_id", "shown_ownership", "label", "status", "first_seen_at", "seen_at"]
    list_filter = ["provider", "ownership"]

    @display(description="ownership", ordering="ownership", label={"suspect": "danger", "ours": "warning"})
    def shown_ownership(self, stranger: Stranger) -> str:
        return stranger.ownership


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ["at", "kind", "message", "linked_session", "actor"]
    list_filter = ["kind"]
    search_fields = ["session__id", "instance__id", "message"]
    date_hierarchy = "at"
    ordering = ["-id"]

    @display(description="session")
    def linked_session(self, event: Event) -> str:
        return format_html('<a href="/admin/gpu_sessions/session/{0}/change/">{1}</a>', event.session_id,
                           str(event.session_id)[:8]) if event.session_id else ""  # fmt: skip


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnly):
    list_display = ["name", "at", "note"]
