"""Celery's doors: parse, call, answer. No task retries, waits or chains; see `sessions.controller`."""

from __future__ import annotations

import logging

from celery import shared_task

from sessions import engine

log = logging.getLogger(__name__)


@shared_task(name="sessions.tasks.tick")
def tick() -> int:
    """Wake every row that is due."""
    return engine.wake_due("beat")


@shared_task(name="sessions.tasks.advance_session")
def advance_session(pk: str) -> None:
    engine.step_session(pk)


@shared_task(name="sessions.tasks.advance_instance")
def advance_instance(pk: str) -> None:
    engine.step_instance(pk)


@shared_task(name="sessions.tasks.reconcile")
def reconcile(provider: str) -> None:
    engine.step_listing(provider)
