"""Celery's doors to the money: parse, call, answer. What has to happen is in rows; a message only wakes."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from costs import budgets, mails, webhooks
from providers import clock


@shared_task(name="costs.tasks.tick")
def tick() -> None:
    """Look at the budgets, and wake whatever waits to be sent."""
    now = clock.now()
    budgets.watch(now)
    webhooks.wake_due(now)
    mails.wake_due(now)
    webhooks.forget_old(now)


@shared_task(name="costs.tasks.deliver")
def deliver(endpoint: str) -> None:
    webhooks.deliver(UUID(endpoint))


@shared_task(name="costs.tasks.send_mail")
def send_mail(pk: str) -> None:
    mails.send(pk)
