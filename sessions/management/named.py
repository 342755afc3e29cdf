"""For commands that take sessions: by the whole id, or by the first characters of it, as the tables show them."""

from __future__ import annotations

import re
from uuid import UUID

from django.core.management.base import CommandError

from sessions.models import Session

SHORTEST = 8  # characters; what tables show, and rarely the beginning of two
MOST_TOLD = 10


def session(text: str) -> Session:
    """Raises CommandError: no id, nobody's, or the beginning of several, which are named."""
    first, last = _span(text)
    # A range instead of a text's beginning: an id is a number to PostgreSQL, and text without hyphens to SQLite.
    found = list(Session.objects.filter(pk__gte=first, pk__lte=last).defer("onstart", "env").order_by("-created_at"))
    if not found:
        raise CommandError(f"No such session: {text}.")
    if len(found) > 1:
        raise CommandError("\n  ".join([f"{len(found)} sessions begin with {text}. Say more of it:",
                                        *(_line(one) for one in found[:MOST_TOLD])]))  # fmt: skip
    return found[0]


def _span(text: str) -> tuple[UUID, UUID]:
    """The least and the greatest id that begin so."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", digits):
        raise CommandError(f"{text!r} is not a session's id, nor its first {SHORTEST} characters or more.")
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _line(one: Session) -> str:
    made = f"{one.created_at:%Y-%m-%d %H:%M} UTC"
    return f"{one.pk}  {one.consumer}  {one.gpu_type} at {one.provider}, {one.status}, made {made}"
