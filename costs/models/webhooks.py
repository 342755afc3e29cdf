"""Endpoints that want to be told, and every message for them with every attempt at it."""

from __future__ import annotations

import uuid

from django.db import models

from costs.models.budgets import Budget
from providers import clock
from sessions.models import Due
from sessions.sealed import SealedField


class Endpoint(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    consumer = models.CharField(max_length=100, blank=True, db_index=True, help_text="Empty: the operators'.")
    budget = models.OneToOneField(
        Budget, null=True, blank=True, on_delete=models.CASCADE, related_name="endpoint",
        help_text="It is told of this budget only.",
    )  # fmt: skip
    url = models.CharField(max_length=2000)
    events = models.JSONField(default=list)
    secret = SealedField()
    old_secret = SealedField(blank=True, help_text="Signs too, until its time is over.")
    old_secret_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_because = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return f"{self.consumer or 'operators'}: {self.url[:80]}"


class Delivery(Due):
    """One message for one endpoint. `due_at` says when it is tried (again); None: it is settled."""

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="deliveries")
    kind = models.CharField(max_length=40)
    body = models.TextField(help_text="The JSON as it is signed and sent.")
    created_at = models.DateTimeField(default=clock.now, editable=False, db_index=True)
    tries = models.PositiveIntegerField(default=0, help_text="Since it was queued, or queued again.")
    delivered_at = models.DateTimeField(null=True, blank=True)
    gave_up_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["endpoint", "due_at"])]
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.kind} {self.message_id}"

    @property
    def message_id(self) -> str:
        """The same for every attempt, so that a receiver can tell a repetition."""
        return f"msg_{self.key.hex}"

    @property
    def state(self) -> str:
        if self.delivered_at:
            return "delivered"
        return "given up" if self.gave_up_at else "waiting"


class DeliveryAttempt(models.Model):
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField()
    status_code = models.PositiveIntegerField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)
    seconds = models.FloatField()

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.status_code or self.error}"
