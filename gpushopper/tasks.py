"""Celery's door to what watches over the whole."""

from __future__ import annotations

from celery import shared_task

from gpushopper import alarms
from providers import clock


@shared_task(name="gpushopper.tasks.tick")
def tick() -> None:
    """Tell of every alarm that began or ended."""
    alarms.raise_new(clock.now())
