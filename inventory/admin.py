"""The menu as operators see it: what is offered, where it was read, and what our own launches taught."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from inventory.models import Launch, Offer, Source
from providers.money import usd
from rest.admin import ReadOnly


@admin.register(Offer)
class OfferAdmin(ReadOnly):
    list_display = ["id", "gpu", "hourly", "provider", "country", "shown_confidence", "shown_state", "fetched_at"]
    list_filter = ["provider", "listed", "available", "gpu_type"]
    search_fields = ["id", "gpu_type", "location", "host"]
    ordering = ["-listed", "price", "id"]
    fieldsets = [
        (None, {"fields": ["id", "provider", "provider_id", "gpu", "provider_gpu_name", "shown_state", "fetched_at"]}),
        ("Price", {"fields": ["hourly", "parts", "interruptible", "max_duration_hours"]}),
        ("Machine", {"fields": ["cuda_version", "cpu_cores", "ram_gb", "disk_gb", "min_disk_gb", "internet_mbps_down",
                                "location", "country", "host"]}),
        ("Trust", {"fields": ["reliability", "shown_confidence", "value"]}),
    ]  # fmt: skip

    @display(description="GPU", ordering="gpu_type")
    def gpu(self, offer: Offer) -> str:
        return f"{offer.gpu_count} × {offer.gpu_type} ({offer.vram_gb} GB)"

    @display(description="per hour", ordering="price")
    def hourly(self, offer: Offer) -> str:
        return f"${usd(offer.price):,.4f}"

    @display(description="of which")
    def parts(self, offer: Offer) -> str:
        named = {"GPU": offer.gpu_price, "vCPU": offer.cpu_price, "RAM": offer.ram_price, "disk": offer.storage_price}
        return ", ".join(f"{name} ${usd(micros):,.4f}" for name, micros in named.items() if micros)

    @display(description="confidence", ordering="confidence")
    def shown_confidence(self, offer: Offer) -> str:
        return f"{offer.confidence:.0%}"

    @display(description="state", label={"on the menu": "success", "taken": "warning"})
    def shown_state(self, offer: Offer) -> str:
        if not offer.listed:
            return "not listed any more"
        return "on the menu" if offer.available else "taken"


@admin.register(Source)
class SourceAdmin(ReadOnly):
    list_display = ["provider", "fetched_at", "offers", "failures", "error", "due_at"]
    fields = ["provider", "fetched_at", "offers", "tried_at", "failures", "error", "due_at"]


@admin.register(Launch)
class LaunchAdmin(ReadOnly):
    list_display = ["at", "provider", "provider_id", "host", "shown_outcome"]
    list_filter = ["provider", "success"]
    search_fields = ["provider_id", "host"]
    ordering = ["-at"]
    fields = ["at", "provider", "provider_id", "host", "shown_outcome"]

    @display(description="outcome", label={"worked": "success", "failed": "danger"})
    def shown_outcome(self, launch: Launch) -> str:
        return "worked" if launch.success else "failed"
