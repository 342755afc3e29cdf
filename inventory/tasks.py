"""Celery's doors to the menu."""

from __future__ import annotations

from celery import shared_task

from inventory import refresh
from providers import clock

_EXPIRES = 60


@shared_task(name="inventory.tasks.tick")
def tick() -> None:
    for provider in refresh.due(clock.now()):
        read.apply_async((provider,), expires=_EXPIRES)


@shared_task(name="inventory.tasks.read")
def read(provider: str) -> None:
    refresh.refresh(provider)
