"""`Idempotency-Key`: the first answer to a POST is kept for 24 hours and given again.

Claimed inside the transaction that does the work, so either both are recorded or neither; a second request
with the same key waits for the first one's commit at the unique index.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from providers import clock
from rest.errors import Problem, bad_field
from sessions.models import Reply, Session

KEPT = timedelta(hours=24)
_BESIDE = timedelta(minutes=5)  # far more than a POST takes
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


def key_of(request: Request) -> str:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not _VISIBLE.fullmatch(key):
        raise bad_field("Idempotency-Key", "1 to 255 visible ASCII characters, without spaces.")
    return key


def claim(key: str, caller: str, body: Any) -> Reply:
    """The row of this key: fresh (`status_code` 0), or with the answer to give again.

    Raises:
        Problem: 422, the key was used with another body.
    """
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
    Reply.objects.filter(consumer=caller, key=key, created_at__lt=clock.now() - KEPT).delete()
    try:
        with transaction.atomic():
            return Reply.objects.create(consumer=caller, key=key, body_digest=digest)
    except IntegrityError:
        reply = Reply.objects.get(consumer=caller, key=key)
    if reply.body_digest != digest:
        raise Problem(
            "idempotency_key_reused",
            "This Idempotency-Key was used with another body; take a new key for a new wish.",
            status_code=422,
        )
    return reply


def keep(reply: Reply, status_code: int, answer: Any) -> None:
    reply.status_code = status_code
    reply.body = json.dumps(answer, cls=JSONEncoder)
    reply.save(update_fields=["status_code", "body"])


def keep_settled(reply: Reply, session: Any) -> None:
    """What was waited for is the answer from now on. Its private key may have been erased meanwhile: that stays so."""
    with transaction.atomic():
        kept = Reply.objects.select_for_update().filter(pk=reply.pk).first()
        if kept is not None:
            keep(kept, kept.status_code, {**body_of(kept), "session": session})


def body_of(reply: Reply) -> Any:
    return json.loads(reply.body)


def forget_key(session: Session) -> None:
    """Its private key is erased: from the answer to its POST as well.

    An answer is kept within the transaction that records its session, so the two are of one age.
    """
    around = (session.created_at - _BESIDE, session.created_at + _BESIDE)
    for reply in Reply.objects.filter(status_code=201, created_at__range=around):
        answer = body_of(reply)
        if answer["session"]["id"] == str(session.pk):
            keep(reply, 201, {**answer, "ssh_private_key": None})


def forget_old(now: datetime) -> None:
    Reply.objects.filter(created_at__lt=now - KEPT).delete()
