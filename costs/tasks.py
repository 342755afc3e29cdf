"""Celery's doors to the money: parse, call, answer. What has to happen is in rows; a message only wakes."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from costs import bills, budgets, mails, webhooks
from providers import clock


@shared_task(name="costs.tasks.tick")
def tick() -> None:
    """Look at the budgets, keep what accounts hold, and wake whatever waits to be sent or read."""
    now = clock.now()
    budgets.watch(now)
    webhooks.wake_due(now)
    mails.wake_due(now)
    webhooks.forget_old(now)
    bills.note_balances(now)
    bills.wake_due(now)


@shared_task(name="costs.tasks.deliver")
def deliver(endpoint: str) -> None:
    webhooks.deliver(UUID(endpoint))


@shared_task(name="costs.tasks.send_mail")
def send_mail(pk: str) -> None:
    mails.send(pk)


@shared_task(name="costs.tasks.import_charges")
def import_charges(provider: str) -> None:
    bills.read_if_due(provider)
