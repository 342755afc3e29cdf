"""Waking the workers. A message only says "look at this row now"; losing it costs a tick, never a machine.

Messages carry ids, are sent after the commit, expire, and their failure is logged and forgotten: the next
tick finds every row that is due.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any
from uuid import UUID

from celery import current_app
from django.db import transaction

log = logging.getLogger(__name__)

INSTANCE = "sessions.tasks.advance_instance"
SESSION = "sessions.tasks.advance_session"
RECONCILE = "sessions.tasks.reconcile"

# Ends go first: a worker of their own takes them in production.
ENDING, LIVING, LISTING = "ending", "living", "listing"

_EXPIRES = 30


def publish(task: str, argument: Any, queue: str) -> None:
    try:
        current_app.send_task(
            task, args=[str(argument)], queue=queue, expires=_EXPIRES, retry=False, ignore_result=True
        )
    except Exception as error:  # Any broker trouble: kombu, redis and sockets each have their own errors.
        log.warning("The broker took no message (%s); the next tick does its work.", type(error).__name__)


def instance(pk: UUID, *, ending: bool) -> None:
    _after_commit(INSTANCE, pk, ENDING if ending else LIVING)


def session(pk: UUID) -> None:
    _after_commit(SESSION, pk, LIVING)


def listing(provider: str) -> None:
    _after_commit(RECONCILE, provider, LISTING)


def _after_commit(task: str, argument: Any, queue: str) -> None:
    transaction.on_commit(partial(publish, task, argument, queue))
