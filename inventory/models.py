"""The menu as rows: offers, their sources, and what our own launches taught about them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models

from providers.base import PriceParts

NANOS = 1_000_000_000  # nano-dollars in a dollar; a GB of disk costs a few of them an hour


class Offer(models.Model):
    """What can be rented, as last listed. Sessions keep copies; rows may go when they are long unlisted."""

    id = models.CharField(primary_key=True, max_length=200)
    provider = models.CharField(max_length=40)
    provider_id = models.CharField(max_length=180)
    provider_gpu_name = models.CharField(max_length=100)
    gpu_type = models.CharField(max_length=60)
    gpu_count = models.PositiveIntegerField()
    vram_gb = models.PositiveIntegerField(help_text="Of one GPU.")

    price = models.BigIntegerField(help_text="Micro-dollars per hour: the whole machine with the default disk.")
    gpu_price = models.BigIntegerField()
    cpu_price = models.BigIntegerField(default=0)
    ram_price = models.BigIntegerField(default=0)
    storage_price = models.BigIntegerField(default=0)
    storage_nanos = models.BigIntegerField(default=0, help_text="Nano-dollars per GB and hour.")

    location = models.CharField(max_length=120, blank=True)
    country = models.CharField(max_length=2, blank=True)
    reliability = models.FloatField(null=True, blank=True)
    confidence = models.FloatField(default=0, help_text="That a launch will work, 0 to 1.")
    value = models.FloatField(default=0, help_text="Total VRAM in GB per dollar and hour, weighed by confidence.")
    available = models.BooleanField(default=True)
    interruptible = models.BooleanField(default=False)
    max_duration_hours = models.FloatField(default=0)
    cuda_version = models.CharField(max_length=10, blank=True)
    cuda_order = models.PositiveIntegerField(default=0, help_text="1208 for 12.8.")
    cpu_cores = models.PositiveIntegerField(default=0)
    ram_gb = models.PositiveIntegerField(default=0)
    disk_gb = models.PositiveIntegerField(default=0, help_text="Most that can be rented; 0: not told.")
    min_disk_gb = models.PositiveIntegerField(default=0)
    internet_mbps_down = models.FloatField(default=0)
    host = models.CharField(max_length=100, blank=True)
    listed = models.BooleanField(default=True, help_text="It was in the last complete listing.")
    fetched_at = models.DateTimeField()

    class Meta:
        ordering = ["price", "id"]
        indexes = [
            models.Index(fields=["listed", "price", "id"]),
            models.Index(fields=["listed", "gpu_type", "price", "id"]),
            models.Index(fields=["provider", "listed"]),
        ]

    def __str__(self) -> str:
        return f"{self.id}: {self.gpu_count} × {self.gpu_type}"

    def price_for(self, disk_gb: int) -> PriceParts:
        """Micro-dollars per hour with a disk of that size."""
        return PriceParts(
            gpu=self.gpu_price, cpu=self.cpu_price, ram=self.ram_price,
            storage=round(self.storage_nanos * disk_gb / 1000),
        )  # fmt: skip


class Source(models.Model):
    """One provider's menu: when it was read, and when to read it again."""

    provider = models.CharField(max_length=40, primary_key=True)
    fetched_at = models.DateTimeField(null=True, blank=True, help_text="The last complete listing.")
    tried_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    revision = models.BigIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    error = models.CharField(
        max_length=500, blank=True, help_text="What the provider said, in its own words; for operators only."
    )
    offers = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.provider

    def is_stale(self, now: datetime) -> bool:
        """Older than two refreshes should ever leave it."""
        return self.fetched_at is None or now - self.fetched_at > 2 * settings.INVENTORY_CACHE_TTL + timedelta(
            seconds=15
        )


class Launch(models.Model):
    """How one of our own launches went; what it teaches fades within a day."""

    provider = models.CharField(max_length=40)
    provider_id = models.CharField(max_length=180)
    host = models.CharField(max_length=100, blank=True)
    success = models.BooleanField()
    at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "launches"
        indexes = [models.Index(fields=["provider", "at"])]

    def __str__(self) -> str:
        return f"{self.provider} {self.provider_id} {'worked' if self.success else 'failed'}"
