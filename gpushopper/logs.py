"""The last net under secrets: whatever looks like one leaves no log line.

Nothing should reach this; adapters and models redact where the secret is. The environment's own secrets
are matched to the letter, keys of ours and private keys by their shape. It works on the finished line, so that
it covers arguments, extra fields and tracebacks alike.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

import structlog

REDACTED = "[redacted]"

_SHAPES = re.compile(
    r"gs_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{20,}|whsec_[A-Za-z0-9+/=]{20,}|Bearer\s+[^\s\"',]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    re.DOTALL,
)
# Shorter values would blot out ordinary words.
_SHORTEST = 8
_SECRET_NAME = re.compile(r"(KEY|KEYS|TOKEN|SECRET|PASSWORD)$")
# Where each call leaves a sign of life, the URL itself is the secret.
_SECRET_URLS = ("HEARTBEAT_URL",)


def secrets_in(values: Iterable[tuple[str, str]]) -> list[str]:
    """What must never be logged of an environment: by the names of its variables."""
    found = {value.strip() for name, value in values if _SECRET_NAME.search(name) or name in _SECRET_URLS}
    parts = {part.strip() for value in found for part in value.split(",")}  # the key settings take several
    return sorted((part for part in found | parts if len(part) >= _SHORTEST), key=len, reverse=True)


class Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter, with `secrets` (and what has the shape of one) taken out of the finished line."""

    def __init__(self, *args: Any, secrets: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._secrets = [text for text in secrets if text]

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for text in self._secrets:
            line = line.replace(text, REDACTED)
        return redact(line)


def redact(text: str) -> str:
    return _SHAPES.sub(REDACTED, text)
