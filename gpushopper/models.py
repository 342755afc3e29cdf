"""Consumers and their API keys. A key is shown once; what is kept is its SHA-256.

The key has 256 random bits, so a fast hash is enough: there is nothing to guess, and a slow one would
let anybody keep our processors busy.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from providers import clock
from rest.access import CONSUMER_NAME, CONSUMER_NAME_RULE

PREFIX_LENGTH = 8

consumer_name = RegexValidator(rf"\A{CONSUMER_NAME.pattern}\Z", CONSUMER_NAME_RULE)


class Consumer(models.Model):
    """Somebody for whom machines are rented; costs and budgets are kept by this name."""

    name = models.CharField(max_length=100, primary_key=True, validators=[consumer_name])
    created_at = models.DateTimeField(default=clock.now, editable=False)
    notes = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    class Role(models.TextChoices):
        CONSUMER = "consumer"
        OPERATOR = "operator"

    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="keys")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.CONSUMER)
    prefix = models.CharField(max_length=PREFIX_LENGTH, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"gs_{self.prefix}_…"

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


def make_key(consumer: Consumer, role: str = ApiKey.Role.CONSUMER) -> tuple[ApiKey, str]:
    """A new key and its text, which can't be had again."""
    prefix = secrets.token_hex(PREFIX_LENGTH // 2)
    text = f"gs_{prefix}_{secrets.token_urlsafe(32)}"
    key = ApiKey.objects.create(consumer=consumer, role=role, prefix=prefix, digest=digest(text))
    return key, text


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Alarm(models.Model):
    """Something that needed a person, from when it was noticed until it was over.

    The row is what makes an alarm ring once, however many processes look: one open row for each subject.
    """

    name = models.CharField(max_length=40)
    subject = models.CharField(max_length=200, help_text="What it is about: a provider, a machine, an engine.")
    text = models.CharField(max_length=1000)
    raised_at = models.DateTimeField(db_index=True)
    over_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-raised_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["name", "subject"], condition=Q(over_at=None), name="one_open_alarm"),
        ]

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}: {self.subject}"


class Pace(models.Model):
    """When the next call of one provider key, method and route may be sent (see `gpushopper.pacing`)."""

    key = models.CharField(max_length=300, primary_key=True)
    free_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.key} from {self.free_at:%H:%M:%S}"
