"""An outside monitor's dead man's switch: HEARTBEAT_URL is fetched after each complete listing.

When this service is blind, hung or gone, the pings stop, and the monitor tells somebody. The URL is a secret
(whoever has it can keep the monitor quiet), so it appears in no log line.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime

import requests
from django.conf import settings

log = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds

_under_way = threading.Lock()
_failed = threading.Event()


def ping(provider: str, began: datetime) -> None:
    """Fetch the URL beside whatever goes on; a ping that is still under way stands for this one too."""
    if settings.HEARTBEAT_URL and _under_way.acquire(blocking=False):
        threading.Thread(target=_ping, name="heartbeat", daemon=True).start()


def _ping() -> None:
    try:
        with requests.get(settings.HEARTBEAT_URL, timeout=TIMEOUT, stream=True) as answer:
            answer.raise_for_status()
        if _failed.is_set():
            log.info("HEARTBEAT_URL answers again.")
        _failed.clear()
    except (requests.RequestException, OSError, ValueError) as error:
        _complain(error)
    finally:
        _under_way.release()


def _complain(error: Exception) -> None:
    """Once, until it answers again: the monitor itself is the alarm for this."""
    if not _failed.is_set():
        log.warning("HEARTBEAT_URL does not answer (%s). Nothing here depends on it; the outside monitor will "
                    "take this for our silence.", type(error).__name__)  # fmt: skip
    _failed.set()
