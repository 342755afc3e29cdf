"""Who asks. Authentication is wired in settings; views only see a principal.

A principal has `is_operator` (sees and may do all) and `consumer` (the name under which its sessions
and costs run; "" for an operator without one).
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from rest_framework import exceptions, permissions
from rest_framework.request import Request

CONSUMER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
CONSUMER_NAME_RULE = (
    "A consumer's name has letters, digits and . _ @ -, at most 100, and begins with a letter or digit."
)


class Principal(Protocol):
    is_operator: bool
    consumer: str


def principal(request: Request) -> Principal:
    user: Any = request.user
    return user  # type: ignore[no-any-return]


def consumer_filter(request: Request, asked: str | None) -> str | None:
    """Whose objects a listing shows: an operator's choice (None: all), or always one's own.

    Somebody else's name is 403: the listing would be a lie if it were silently narrowed.
    """
    who = principal(request)
    if who.is_operator:
        return asked
    if asked is not None and asked != who.consumer:
        raise exceptions.PermissionDenied("Your key belongs to another consumer.")
    return who.consumer


class IsKnown(permissions.BasePermission):
    """Anybody with a valid key, or an administrator logged in to the browser."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return hasattr(request.user, "is_operator")


class IsOperator(permissions.BasePermission):
    message = "This needs an operator's key."

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(getattr(request.user, "is_operator", False))
