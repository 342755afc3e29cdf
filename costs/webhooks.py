"""Webhooks: who is told of what, and the one way in which a message leaves.

A message is a row, written in the transaction of what it tells of, so neither can be without the other. It
is tried until a receiver says 2xx, by the back-off of the Standard Webhooks specification; each attempt
carries the same id. Attempts are made by tasks of their own, never in a request or a transaction, and one
receiver that is slow or dead keeps at most one thread of a process.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F

from costs import delivery, signing, targets
from costs.models import Budget, Delivery, DeliveryAttempt, Endpoint
from providers import clock
from sessions import outlets, rows, shapes, wake
from sessions.models import Event

log = logging.getLogger(__name__)

DELIVER = "costs.tasks.deliver"
QUEUE = "misc"

BUDGET_EVENTS = ("budget.threshold", "budget.exceeded")
CONSUMER_EVENTS = ("session.running", "session.stopped", "session.failed", *BUDGET_EVENTS)
OPERATOR_EVENTS = (*CONSUMER_EVENTS, "orphan.detected", "destroy.overdue")

_KIND_OF = {
    "session_running": "session.running",
    "session_stopped": "session.stopped",
    "session_failed": "session.failed",
    "orphan_adopted": "orphan.detected",
    "destroy_overdue": "destroy.overdue",
}

# From the specification: three days and three hours in all, ten attempts.
BACK_OFF = (
    timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
    timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
)  # fmt: skip

# The look-up of a name and a POST that is cut off at its last moment fit in.
LEASE = timedelta(seconds=60)

# After a failed attempt the endpoint's other messages wait for so long: a dead receiver with a thousand
# messages then costs a quarter of one thread, not all of it.
REST = timedelta(seconds=60)

# A task leaves the rest to the next tick after so long, so that it ends when the worker is stopped.
AT_MOST = timedelta(seconds=30)

# Of the embedded service's 12 threads and a worker's 16; what finds no seat comes again with the next tick.
SEATS = 3

OLD_SECRET_SIGNS_FOR = timedelta(hours=24)
KEPT = timedelta(days=30)


def connect() -> None:
    if announce not in outlets.told:
        outlets.told.append(announce)


# --- What is told to whom ---------------------------------------------------------------------------------------


def announce(event: Event) -> None:
    """Hear of an event as it is written; queue what endpoints want to know of it."""
    kind = _KIND_OF.get(event.kind)
    if kind is None:
        return
    try:
        with transaction.atomic():
            _announce(kind, event)
    except Exception:  # Whatever it is: a machine's way is not held up because nobody can be told of it.
        log.exception("event %s (%s): its webhooks could not be queued; the event itself stands.", event.pk, kind)


def _announce(kind: str, event: Event) -> None:
    session = event.session
    if session is not None and kind.startswith("session."):
        emit(kind, {"session": shapes.session_json(session, event.at)}, event.at, consumer=session.consumer)
    else:
        emit(kind, _of_machine(event), event.at)


def _of_machine(event: Event) -> dict[str, Any]:
    row = event.instance
    return {
        "provider": row.provider if row else event.data.get("provider"),
        "machine_id": row.machine_id if row else event.data.get("machine_id"),
        "instance_id": str(row.pk) if row else None,
        "session_id": str(event.session_id) if event.session_id else None,
        "message": event.message,
    }


def emit(
    kind: str, data: Mapping[str, Any], now: datetime, *, consumer: str = "", budget: Budget | None = None
) -> None:
    """Queue a message for each endpoint that wants it: the consumer's own, and the operators'.

    Call it inside the transaction of what has happened.
    """
    body = json.dumps({"type": kind, "timestamp": shapes.instant(now), "data": data}, separators=(",", ":"))
    endpoints = Endpoint.objects.filter(consumer__in={consumer, ""}, disabled_at=None)
    for endpoint, of_budget, events in endpoints.values_list("pk", "budget", "events"):
        its_own = of_budget is None or (budget is not None and of_budget == budget.pk)
        if its_own and kind in events:
            Delivery.objects.create(endpoint_id=endpoint, kind=kind, body=body, created_at=now, due_at=now)
            transaction.on_commit(partial(wake.publish, DELIVER, endpoint, QUEUE))


# --- Attempts ---------------------------------------------------------------------------------------------------


def wake_due(now: datetime) -> None:
    """Send a message for each endpoint that has something due."""
    due = Delivery.objects.filter(due_at__lte=now).order_by()
    for endpoint in due.values_list("endpoint", flat=True).distinct():
        wake.publish(DELIVER, endpoint, QUEUE)


def deliver(endpoint: UUID) -> int:
    """Try what is due for an endpoint, oldest first, until one fails. Returns how many were delivered."""
    delivered, until = 0, clock.monotonic() + AT_MOST.total_seconds()
    with _seat(endpoint) as taken:
        while taken and clock.monotonic() < until:
            due = Delivery.objects.filter(endpoint=endpoint, due_at__lte=clock.now()).order_by("id")
            pk = due.values_list("pk", flat=True).first()
            if pk is None or not attempt(pk):
                break
            delivered += 1
    return delivered


_busy: set[UUID] = set()
_busy_lock = threading.Lock()


@contextmanager
def _seat(endpoint: UUID) -> Iterator[bool]:
    with _busy_lock:
        taken = endpoint not in _busy and len(_busy) < SEATS
        if taken:
            _busy.add(endpoint)
    try:
        yield taken
    finally:
        if taken:
            with _busy_lock:
                _busy.discard(endpoint)


def attempt(pk: int) -> bool:
    """One attempt at one message. False if it failed, or was not this caller's to make."""
    now = clock.now()
    row = rows.claim(Delivery, pk, now)
    if row is None or not rows.write(row, due_at=now + LEASE):
        return False
    began = clock.monotonic()
    status, error = _send(row, now)
    seconds = clock.monotonic() - began
    return _record(row, status, error, seconds, now + timedelta(seconds=seconds))


def _send(row: Delivery, now: datetime) -> tuple[int | None, str]:
    body = row.body.encode()
    headers = {
        "Content-Type": "application/json", "User-Agent": "gpu-shopper-webhooks/1",
        **signing.headers(keys_of(row.endpoint, now), row.message_id, now, body),
    }  # fmt: skip
    try:
        target = targets.check(row.endpoint.url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
        status = delivery.post(target, body, headers)
    except (targets.Forbidden, targets.Unresolved, delivery.Undelivered) as error:
        return None, str(error)
    if 300 <= status < 400:
        return status, "a redirect is not followed"
    return status, "" if 200 <= status < 300 else f"the answer was {status}"


def keys_of(endpoint: Endpoint, now: datetime) -> list[str]:
    """The secrets that sign: the present one, and for a day the one before."""
    old_signs = endpoint.old_secret and endpoint.old_secret_until and endpoint.old_secret_until > now
    return [endpoint.secret, endpoint.old_secret] if old_signs else [endpoint.secret]


GONE = 410


def _record(row: Delivery, status: int | None, error: str, seconds: float, ended: datetime) -> bool:
    with transaction.atomic():
        if not Delivery.objects.filter(pk=row.pk).exists():
            return False  # Its endpoint was deleted meanwhile.
        DeliveryAttempt.objects.create(
            delivery=row, at=ended, status_code=status, error=error[:300], seconds=round(seconds, 3)
        )
        if not error:
            rows.write(row, tries=row.tries + 1, delivered_at=ended, due_at=None)
            return True
        _failed(row, ended)
        if status == GONE:
            disable(row.endpoint, "the receiver said that it is gone (410)", ended)
    log.warning("webhook %s to endpoint %s: attempt %d failed: %s.", row.pk, row.endpoint_id, row.tries, error)
    return False


def _failed(row: Delivery, ended: datetime) -> None:
    tries = row.tries + 1
    if tries > len(BACK_OFF):
        rows.write(row, tries=tries, gave_up_at=ended, due_at=None)
    else:
        rows.write(row, tries=tries, due_at=ended + BACK_OFF[tries - 1])
    others = Delivery.objects.filter(endpoint=row.endpoint_id, due_at__lte=ended).exclude(pk=row.pk)
    others.update(due_at=ended + REST)


# --- Endpoints ---------------------------------------------------------------------------------------------------


def add(url: str, *, consumer: str, events: list[str], budget: Budget | None = None) -> Endpoint:
    """A new endpoint with a fresh secret. `url` was checked before."""
    return Endpoint.objects.create(
        consumer=consumer, budget=budget, url=url, events=events, secret=signing.make_secret()
    )


def rotate(endpoint: Endpoint, now: datetime) -> None:
    """A fresh secret. The one before signs too for a day; one from before that no more."""
    endpoint.old_secret, endpoint.old_secret_until = endpoint.secret, now + OLD_SECRET_SIGNS_FOR
    endpoint.secret = signing.make_secret()
    endpoint.save(update_fields=["secret", "old_secret", "old_secret_until"])


def disable(endpoint: Endpoint, because: str, now: datetime) -> None:
    """Nothing is sent there any more, what waits included."""
    with transaction.atomic():
        Endpoint.objects.filter(pk=endpoint.pk, disabled_at=None).update(disabled_at=now, disabled_because=because)
        waiting = Delivery.objects.filter(endpoint=endpoint, delivered_at=None, gave_up_at=None)
        waiting.update(gave_up_at=now, due_at=None, revision=F("revision") + 1)


def enable(endpoint: Endpoint) -> None:
    Endpoint.objects.filter(pk=endpoint.pk).update(disabled_at=None, disabled_because="")


def deliver_again(row: Delivery, now: datetime) -> bool:
    """From the beginning, with the same id. False if its endpoint is disabled."""
    if row.endpoint.disabled_at is not None:
        return False
    Delivery.objects.filter(pk=row.pk).update(
        due_at=now, tries=0, delivered_at=None, gave_up_at=None, revision=F("revision") + 1
    )
    transaction.on_commit(partial(wake.publish, DELIVER, row.endpoint_id, QUEUE))
    return True


def forget_old(now: datetime) -> None:
    """Settled messages are kept for a month."""
    Delivery.objects.filter(created_at__lt=now - KEPT, due_at=None).delete()
