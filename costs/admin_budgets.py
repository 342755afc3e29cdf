"""Operators' view of budgets, alerts, webhooks and deliveries. No secret is ever shown."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import action, display
from unfold.views import ChangeList

from costs import budgets, webhooks
from costs.budgeting import Standing
from costs.models import Alert, Budget, Delivery, DeliveryAttempt, Endpoint, Mail
from providers import clock
from providers.money import dollars
from rest.admin import ReadOnly, ReadOnlyInline, counted

STATE_COLOURS = {"delivered": "success", "waiting": "info", "given up": "danger", "disabled": "danger"}


class Alerts(ReadOnlyInline):
    model = Alert
    fields = readonly_fields = ["at", "percent", "period_start", "of_limit", "was_spent"]

    @display(description="threshold")
    def percent(self, alert: Alert) -> str:
        return f"{alert.threshold / 100:g} %"

    @display(description="limit")
    def of_limit(self, alert: Alert) -> str:
        return dollars(alert.limit)

    @display(description="spent")
    def was_spent(self, alert: Alert) -> str:
        return dollars(alert.spent)


class Standings(ChangeList):
    """A page of budgets, with where each stands: asked once for all of them, not for each row."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)  # type: ignore[has-type]
        for outlook in budgets.outlooks(self.result_list, clock.now()):
            outlook.budget.room = outlook.standing  # type: ignore[attr-defined]


@admin.register(Budget)
class BudgetAdmin(ReadOnly):
    """Set through the API, where each change is checked and acts at once."""

    list_display = ["consumer", "period", "shown_limit", "standing", "on_limit", "by_operator"]
    list_filter = ["period", "on_limit", "consumer"]
    search_fields = ["consumer"]
    inlines = [Alerts]
    fieldsets = [
        (None, {"fields": ["id", "consumer", "period", "shown_limit", "percents", "on_limit", "by_operator"]}),
        ("Where it stands", {"fields": ["standing", "says", "watched_at", "created_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["shown_limit", "percents", "standing", "says"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return Standings

    @display(description="limit", ordering="limit")
    def shown_limit(self, budget: Budget) -> str:
        return dollars(budget.limit)

    @display(description="thresholds")
    def percents(self, budget: Budget) -> str:
        return ", ".join(f"{threshold / 100:g} %" for threshold in budget.thresholds)

    @display(description="stands at")
    def standing(self, budget: Budget) -> str:
        room: Standing = getattr(budget, "room", None) or budgets.stands(budget)
        parts = (room.spent, "spent"), (room.reserved, "reserved"), (room.remaining, "left")
        return ", ".join(f"{dollars(amount)} {word}" for amount, word in parts)

    @display(description="right now")
    def says(self, budget: Budget) -> str:
        return budgets.notice(budget, budgets.stands(budget)) or "There is room."


@admin.register(Alert)
class AlertAdmin(ReadOnly):
    list_display = ["at", "budget", "percent", "was_spent", "mail_state"]
    list_filter = ["threshold"]
    list_select_related = ["budget", "mail"]
    search_fields = ["budget__consumer"]
    date_hierarchy = "at"
    percent = Alerts.percent
    was_spent = Alerts.was_spent

    @display(description="mail", label={"sent": "success", "waiting": "info", "given up": "danger"})
    def mail_state(self, alert: Alert) -> str:
        mail = getattr(alert, "mail", None)
        if mail is None:
            return ""
        return "sent" if mail.sent_at else "waiting" if mail.due_at else "given up"


@admin.register(Mail)
class MailAdmin(ReadOnly):
    list_display = ["created_at", "subject", "attempts", "sent_at", "due_at", "error"]


@admin.register(Endpoint)
class EndpointAdmin(ReadOnly):
    list_display = ["url", "owner", "of_budget", "created_at", "shown_state", "disabled_because"]
    list_select_related = ["budget"]
    search_fields = ["consumer", "url"]
    actions = ["enable"]
    fields = ["id", "owner", "url", "events", "of_budget", "created_at", "old_secret_until", "shown_state",
              "disabled_because"]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["owner", "of_budget", "shown_state"]

    def verbs_for(self, obj: Endpoint) -> list[str]:
        return ["enable"] if obj.disabled_at else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        found: QuerySet[Endpoint] = super().get_queryset(request)
        return found.defer("secret", "old_secret")

    @display(description="owner", ordering="consumer")
    def owner(self, endpoint: Endpoint) -> str:
        return endpoint.consumer or "operators"

    @display(description="of budget")
    def of_budget(self, endpoint: Endpoint) -> str:
        return str(endpoint.budget) if endpoint.budget else ""

    @display(description="state", label={"in use": "success", "disabled": "danger"})
    def shown_state(self, endpoint: Endpoint) -> str:
        return "disabled" if endpoint.disabled_at else "in use"

    @action(description="Enable again")
    def enable(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        for endpoint in queryset:
            webhooks.enable(endpoint)
        messages.success(request, "New messages are sent there again; old ones by “Deliver again”.")


class Attempts(ReadOnlyInline):
    model = DeliveryAttempt
    fields = readonly_fields = ["at", "status_code", "error", "seconds"]


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    list_display = ["created_at", "kind", "endpoint", "shown_state", "tries", "due_at", "message_id"]
    list_filter = ["kind", ("delivered_at", admin.EmptyFieldListFilter), ("gave_up_at", admin.EmptyFieldListFilter)]
    search_fields = ["endpoint__url", "endpoint__consumer", "key"]
    list_select_related = ["endpoint"]
    date_hierarchy = "created_at"
    inlines = [Attempts]
    actions = ["deliver_again"]
    fields = ["message_id", "endpoint", "kind", "shown_state", "tries", "due_at", "delivered_at", "gave_up_at", "body"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["message_id", "shown_state"]

    def verbs_for(self, obj: Delivery) -> list[str]:
        return [] if obj.endpoint.disabled_at else ["deliver_again"]

    @display(description="state", label=STATE_COLOURS)
    def shown_state(self, row: Delivery) -> str:
        return row.state

    @action(description="Deliver again")
    def deliver_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        now = clock.now()
        chosen = list(queryset.select_related("endpoint"))
        queued = sum(webhooks.deliver_again(row, now) for row in chosen)
        messages.success(request, f"Sent again, with the old id: {counted(queued, 'message')}.")
        if queued < len(chosen):
            messages.warning(request, f"{counted(len(chosen) - queued, 'message')} not: the endpoint is disabled.")
