"""What is metered: for each machine the stretches of time in which it cost one rate."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

# A closed interval's cost; see there.
SUMMED = ("compute_micros", "compute_grains", "storage_micros", "storage_grains", "microseconds")


class UsageInterval(models.Model):
    """[started_at, ended_at) at one rate; open while `ended_at` is null. Never deleted.

    Whose it is stands here too, so that a report reads one table. A closed interval has its cost with it, as whole
    micro-dollars and the grains (`costs.metering`) that are left over: sums of both stay exact in 64 bits.
    """

    instance = models.ForeignKey("gpu_sessions.Instance", on_delete=models.PROTECT, related_name="usage")
    session = models.ForeignKey(
        "gpu_sessions.Session", null=True, blank=True, on_delete=models.PROTECT, related_name="usage"
    )
    consumer = models.CharField(max_length=100, blank=True, help_text="Empty: nobody's, on the deployment's account.")
    provider = models.CharField(max_length=40)
    gpu_type = models.CharField(max_length=60, blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    compute = models.BigIntegerField(help_text="Micro-dollars per hour: GPU, CPU and RAM.")
    storage = models.BigIntegerField(help_text="Micro-dollars per hour.")

    compute_micros = models.BigIntegerField(default=0)
    compute_grains = models.BigIntegerField(default=0)
    storage_micros = models.BigIntegerField(default=0)
    storage_grains = models.BigIntegerField(default=0)
    microseconds = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["session", "ended_at", "started_at"], name="usage_of_a_session"),
            models.Index(fields=["ended_at", "started_at"], name="usage_by_end"),
            models.Index(fields=["started_at", "ended_at"], name="usage_by_start"),
            models.Index(fields=["consumer", "ended_at", "started_at"], name="usage_of_a_consumer"),
            # All that the report of a month reads: it is added up from here without a look at any row.
            models.Index(fields=["provider", "gpu_type", "ended_at", "started_at", *SUMMED], name="usage_by_kind"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["instance"], condition=Q(ended_at__isnull=True), name="one_open_interval_per_machine"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("started_at")), name="intervals_run_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} from {self.started_at:%Y-%m-%d %H:%M:%S}"


class Spending(UsageInterval):
    """The same rows, for the page that shows what they come to."""

    class Meta:
        proxy = True
        verbose_name_plural = "costs"
