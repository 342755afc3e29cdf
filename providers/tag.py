"""The label by which a machine is known to be ours: `gs-<deployment>-<nonce>-<deadline>-<signature>`.

Pure. It describes itself (whose it is, when it must be gone at the latest) and signs itself, so that a
deployment that lost its database still recognises its machines, and never takes somebody else's for its
own: ownership is a valid signature, not a resemblance. Lower-case letters, digits and hyphens, at most
60 characters, which both providers keep as they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

PREFIX = "gs"
MAX_LENGTH = 60

_SHAPE = re.compile(r"gs-(?P<deployment>[a-z0-9]{1,12})-(?P<nonce>[a-z2-7]{16})-(?P<deadline>[0-9a-z]{6,8})"
                    r"-(?P<signature>[a-z2-7]{12})")  # fmt: skip
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Ownership(StrEnum):
    OURS = "ours"
    SUSPECT = "suspect"  # looks like ours, but is damaged or forged: for a person, never for a rule
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Reading:
    ownership: Ownership
    deadline: datetime | None = None  # only if ours


def mint(deployment: str, hard_deadline: datetime, key: str) -> str:
    """A fresh label. The nonce is random: a restored database would repeat a sequence."""
    nonce = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return sign(deployment, nonce, hard_deadline, key)


def sign(deployment: str, nonce: str, hard_deadline: datetime, key: str) -> str:
    body = f"{PREFIX}-{deployment}-{nonce}-{_base36(int(hard_deadline.timestamp()))}"
    return f"{body}-{_signature(body, key)}"


def read(label: str | None, deployment: str, keys: Sequence[str]) -> Reading:
    """Whose machine bears this label? `keys` are the present tag key and earlier ones."""
    label = label or ""
    found = _SHAPE.fullmatch(label)
    if found is None:
        return Reading(Ownership.SUSPECT if _resembles(label, deployment) else Ownership.FOREIGN)
    if found["deployment"] != deployment:
        return Reading(Ownership.FOREIGN)
    body = label.rpartition("-")[0]
    if not any(hmac.compare_digest(found["signature"], _signature(body, key)) for key in keys):
        return Reading(Ownership.SUSPECT)
    return Reading(Ownership.OURS, datetime.fromtimestamp(int(found["deadline"], 36), UTC))


def _resembles(label: str, deployment: str) -> bool:
    """A label of ours that was cut off, changed in case, or otherwise damaged."""
    start = f"{PREFIX}-{deployment}-"
    lowered = label.strip().lower()
    return lowered.startswith(start) or (len(lowered) >= len(PREFIX) + 2 and start.startswith(lowered))


def _signature(body: str, key: str) -> str:
    digest = hmac.new(key.encode(), body.encode(), hashlib.sha256).digest()
    return base64.b32encode(digest).decode().lower()[:12]


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
