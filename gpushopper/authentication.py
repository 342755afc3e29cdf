"""Who asks: the bearer of an API key, or an administrator logged in to the browser."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from gpushopper.models import ApiKey, digest
from providers import clock

# `last_used_at` is for people; writing it at each request would make every read a write.
_USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of `rest.access`."""

    consumer: str
    is_operator: bool
    key_prefix: str = ""
    administrator: str = ""  # the name of who is logged in to the browser
    is_authenticated: bool = True

    def __str__(self) -> str:
        """Who it was, for the timeline. No consumer's name has a space, so no consumer is taken for another."""
        return self.consumer or f"administrator {self.administrator}"


class KeyAuthentication(authentication.BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Caller, ApiKey] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or not text.strip():
            raise exceptions.AuthenticationFailed("Send the key as: Authorization: Bearer <key>")
        now = clock.now()
        key = ApiKey.objects.filter(digest=digest(text.strip())).first()
        if key is None or not key.is_live(now):
            raise exceptions.AuthenticationFailed("This API key is not known here, has expired or is revoked.")
        _note_use(key, now)
        caller = Caller(key.consumer_id, key.role == ApiKey.Role.OPERATOR, key.prefix)
        return caller, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gpu-shopper"'


class AdminAuthentication(authentication.SessionAuthentication):
    """Admin users are operators; DRF's session authentication keeps CSRF protection on."""

    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        found = super().authenticate(request)
        if found is None or not found[0].is_staff:
            return None
        return Caller(consumer="", is_operator=True, administrator=found[0].get_username()), None


def _note_use(key: ApiKey, now: datetime) -> None:
    if key.last_used_at is not None and key.last_used_at >= now - _USE_NOTED_EVERY:
        return  # An UPDATE that changes nothing would still queue up behind every writer.
    stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - _USE_NOTED_EVERY)
    ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
