"""`Prefer: wait=N` (RFC 7240): answer when the thing has settled, or after N seconds.

The only place of the web process that waits. It holds a server thread, so N is bounded, and so is the number
of those who wait at once: the others are answered without waiting, and without `Preference-Applied`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from rest_framework.request import Request
from rest_framework.response import Response

from providers import clock

LONGEST = 120
_POLL = 0.2
# Half of the threads of a web process (`gpushopper.embedded`, `gpushopper.gunicorn`).
AT_ONCE = 4
_seats = threading.BoundedSemaphore(AT_ONCE)

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*(\"?)([0-9]{1,18})\1\s*(?=$|[,;])", re.IGNORECASE)


def wanted(request: Request) -> int:
    """Seconds asked for, at most 120; 0 without the header, or if it can't be read: it is a preference."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found.group(2)), LONGEST) if found else 0


def until(settled: Callable[[], bool], seconds: int) -> bool:
    """Wait; False if nobody may wait here now."""
    if not seconds or not _seats.acquire(blocking=False):
        return False
    try:
        end = clock.monotonic() + seconds
        while not settled() and clock.monotonic() < end:
            clock.sleep(_POLL)
    finally:
        _seats.release()
    return True


def applied(response: Response, seconds: int) -> Response:
    if seconds:
        response["Preference-Applied"] = f"wait={seconds}"
    return response
