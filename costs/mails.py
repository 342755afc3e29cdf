"""E-mails of budget alerts, sent from rows like everything else: what can't be sent now is sent later."""

from __future__ import annotations

import logging
import smtplib
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction

from costs.models import Alert, Mail
from costs.webhooks import BACK_OFF, QUEUE
from providers import clock
from sessions import rows, wake

log = logging.getLogger(__name__)

SEND = "costs.tasks.send_mail"

# EMAIL_TIMEOUT holds for each of the six or seven exchanges that a mail takes, greeting and login among them.
LEASE = timedelta(minutes=5)


def queue(alert: Alert, subject: str, body: str, now: datetime) -> None:
    """Inside the alert's own transaction; nothing if no mail is configured."""
    if not settings.ALERT_EMAILS:
        return
    mail = Mail.objects.create(alert=alert, subject=subject[:200], body=body, created_at=now, due_at=now)
    transaction.on_commit(partial(wake.publish, SEND, mail.pk, QUEUE))


def wake_due(now: datetime) -> None:
    for mail in rows.due(Mail, now):
        wake.publish(SEND, mail.pk, QUEUE)


def send(pk: UUID | str) -> bool:
    """One attempt at one mail. False if it failed, or was not this caller's to make."""
    now = clock.now()
    mail = rows.claim(Mail, pk, now)
    if mail is None or not rows.write(mail, due_at=now + LEASE):
        return False
    try:
        # One name for all attempts: of two that arrive, a mail program shows one.
        name = f"<{mail.pk}@{settings.DEPLOYMENT_ID}.gpu-shopper>"
        EmailMessage(mail.subject, mail.body, to=settings.ALERT_EMAILS, headers={"Message-ID": name}).send()
    except (OSError, smtplib.SMTPException) as error:
        _failed(mail, f"{type(error).__name__}: {error}", now)
        return False
    rows.write(mail, sent_at=now, due_at=None, attempts=mail.attempts + 1, error="")
    return True


def _failed(mail: Mail, error: str, now: datetime) -> None:
    attempts = mail.attempts + 1
    later = now + BACK_OFF[attempts - 1] if attempts <= len(BACK_OFF) else None
    rows.write(mail, attempts=attempts, error=error[:300], due_at=later)
    log.warning("alert mail %s: attempt %d failed: %s", mail.pk, attempts, error)
