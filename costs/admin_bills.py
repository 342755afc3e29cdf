"""What was used and what was charged, row by row."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from costs import metering
from costs.metering import GRAINS, Rates
from costs.models import Balance, Bill, BilledCharge, UsageInterval
from providers import clock
from providers.money import dollars
from rest.admin import ReadOnly


@admin.register(UsageInterval)
class UsageIntervalAdmin(ReadOnly):
    """A machine at one rate; `cost` so far while it is open."""

    list_display = ["started_at", "ended_at", "consumer", "provider", "gpu_type", "rate", "cost"]
    list_filter = ["provider", ("ended_at", admin.EmptyFieldListFilter), "consumer", "gpu_type"]
    search_fields = ["session__id", "instance__machine_id", "consumer"]
    date_hierarchy = "started_at"
    ordering = ["-id"]
    fields = ["instance", "session", "consumer", "provider", "gpu_type", "started_at", "ended_at", "rate", "cost"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["rate", "cost"]

    @display(description="rate")
    def rate(self, row: UsageInterval) -> str:
        storage = f", {dollars(row.storage)}/h of it storage" if row.storage else ""
        return f"{dollars(row.compute + row.storage)}/h{storage}"

    @display(description="cost")
    def cost(self, row: UsageInterval) -> str:
        used = metering.within(row.started_at, row.ended_at or clock.now(), Rates(row.compute, row.storage))
        return dollars(used.total // GRAINS)


@admin.register(BilledCharge)
class BilledChargeAdmin(ReadOnly):
    list_display = ["day", "provider", "machine_id", "kind", "shown_amount", "instance"]
    list_filter = ["provider", "kind", ("instance", admin.EmptyFieldListFilter)]
    search_fields = ["machine_id", "label"]
    list_select_related = ["instance"]
    date_hierarchy = "day"
    fields = ["day", "provider", "machine_id", "label", "kind", "started_at", "ended_at", "shown_amount", "instance",
              "imported_at"]  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["shown_amount"]

    @display(description="amount", ordering="amount")
    def shown_amount(self, row: BilledCharge) -> str:
        return dollars(row.amount)


@admin.register(Bill)
class BillAdmin(ReadOnly):
    """How far a bill was read; `manage.py import_charges` reads on."""

    list_display = ["provider", "read_at", "tried_at", "failures", "error", "due_at"]


@admin.register(Balance)
class BalanceAdmin(ReadOnly):
    list_display = ["at", "provider", "shown_amount"]
    list_filter = ["provider"]
    date_hierarchy = "at"
    fields = ["at", "provider", "shown_amount"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["shown_amount"]

    shown_amount = BilledChargeAdmin.shown_amount
