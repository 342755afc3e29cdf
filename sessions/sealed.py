"""Text that is encrypted at rest (Fernet: AES-128-CBC with HMAC-SHA256).

The keys come from FIELD_ENCRYPTION_KEYS: the first one seals, all of them open, so a key is changed by
putting a new one in front. They are independent of SECRET_KEY.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.query_utils import DeferredAttribute


class Unreadable(ImproperlyConfigured):
    """It was sealed with another key."""


def seal(text: str) -> str:
    return _box(tuple(settings.FIELD_ENCRYPTION_KEYS)).encrypt(text.encode()).decode()


def unseal(token: str) -> str:
    try:
        return _box(tuple(settings.FIELD_ENCRYPTION_KEYS)).decrypt(token.encode()).decode()
    except InvalidToken as error:
        raise Unreadable(
            "A sealed value can't be opened with the FIELD_ENCRYPTION_KEYS at hand; put the key that "
            "sealed it back into the list."
        ) from error


@lru_cache(maxsize=4)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


class Sealed(str):
    """As it lies in the database."""


class _Opened(DeferredAttribute):
    """Opens what is sealed when somebody asks for it, not with the row: without the key a machine still has to end."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        return unseal(value) if isinstance(value, Sealed) else value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class SealedField(models.TextField):  # type: ignore[type-arg]
    """A text that is sealed in the database and plain in Python. "" stays "": there is nothing to hide."""

    descriptor_class = _Opened

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, Sealed):
            return str(value)
        return seal(value) if value else ""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str:
        return Sealed(value) if value else ""

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        return model_instance.__dict__[self.attname]
