"""Budgets, and the alerts that they have given."""

from __future__ import annotations

import uuid

from django.db import models

from costs.budgeting import OnLimit, Period
from providers import clock
from sessions.models import Due


def default_thresholds() -> list[int]:
    return [5_000, 8_000, 10_000]


class Budget(Due):
    """How much a consumer may spend. Looked at again and again: `due_at` says when next."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    consumer = models.CharField(max_length=100, db_index=True)
    period = models.CharField(max_length=10, choices=[(p.value, p.value) for p in Period])
    limit = models.BigIntegerField(help_text="Micro-dollars in one period.")
    thresholds = models.JSONField(default=default_thresholds, help_text="Ten-thousandths of the limit, ascending.")
    on_limit = models.CharField(max_length=10, choices=[(o.value, o.value) for o in OnLimit])
    by_operator = models.BooleanField(default=True, help_text="Its consumer can't change it.")
    created_at = models.DateTimeField(default=clock.now, editable=False)
    watched_at = models.DateTimeField(default=clock.now, editable=False, help_text="What was spent before is compared.")

    class Meta:
        ordering = ["consumer", "created_at", "id"]

    def __str__(self) -> str:
        return f"{self.consumer}: {self.limit / 1_000_000:,.2f} USD {self.period}"


class Alert(models.Model):
    """A threshold was crossed. The row is what makes it happen once, whoever looks and however often."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="alerts")
    # On the first of a month the day and the month begin at once: a crossing of the one is none of the other.
    period = models.CharField(max_length=10, choices=[(p.value, p.value) for p in Period])
    period_start = models.DateTimeField()
    threshold = models.PositiveIntegerField(help_text="Ten-thousandths of the limit.")
    # A limit that is changed is another promise: what was crossed of the old one is not yet of the new.
    limit = models.BigIntegerField(help_text="Micro-dollars, as it was then.")
    spent = models.BigIntegerField(help_text="Micro-dollars, as it was then.")
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-threshold"]
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "period", "period_start", "threshold", "limit"], name="one_alert_per_crossing"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget}: {self.threshold / 100:g} %"


class Mail(Due):
    """An e-mail that has to go out, because of an alert."""

    alert = models.OneToOneField(Alert, on_delete=models.CASCADE, related_name="mail")
    subject = models.CharField(max_length=200)
    body = models.TextField()
    created_at = models.DateTimeField(default=clock.now, editable=False)
    attempts = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.subject
