"""What providers say that they charge: the lines of their bills, when those were read, and what accounts held."""

from __future__ import annotations

from django.db import models

from sessions.models import Due


class BilledCharge(models.Model):
    """One line of a bill. A day's lines of a machine are replaced as a whole each time that day is read."""

    provider = models.CharField(max_length=40)
    machine_id = models.CharField(max_length=100)
    label = models.CharField(max_length=300, blank=True)
    day = models.DateField(help_text="UTC; the day in which it begins.")
    line = models.PositiveIntegerField(help_text="Within the machine's day.")
    kind = models.CharField(max_length=20, help_text="gpu, storage, network, other.")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_index=True)
    amount = models.BigIntegerField(help_text="Micro-dollars.")
    imported_at = models.DateTimeField()
    instance = models.ForeignKey(
        "gpu_sessions.Instance", null=True, blank=True, on_delete=models.PROTECT, related_name="charges",
        help_text="Empty: no machine of ours is known by that id.",
    )  # fmt: skip

    class Meta:
        ordering = ["-day", "provider", "machine_id", "line"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "day", "machine_id", "line"], name="one_row_per_charge"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.machine_id} {self.day} {self.kind}"


class Bill(Due):
    """How far one provider's bill has been read."""

    provider = models.CharField(max_length=40, primary_key=True)
    read_at = models.DateTimeField(null=True, blank=True, help_text="All of it that was asked for came then.")
    tried_at = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.provider


class Balance(models.Model):
    """What was left of an account's money, where the provider says so."""

    provider = models.CharField(max_length=40)
    at = models.DateTimeField()
    amount = models.BigIntegerField(help_text="Micro-dollars.")

    class Meta:
        ordering = ["-at"]
        constraints = [models.UniqueConstraint(fields=["provider", "at"], name="one_balance_at_a_time")]

    def __str__(self) -> str:
        return f"{self.provider} {self.at:%Y-%m-%d %H:%M}"
