"""`Prefer: wait=N` (RFC 7240): answer when the thing has settled, or after N seconds.

The only place of the web process that waits; it holds one server thread, so N is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rest_framework.request import Request
from rest_framework.response import Response

from providers import clock

LONGEST = 120
_POLL = 0.2

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)


def wanted(request: Request) -> int:
    """Seconds asked for, at most 120; 0 without the header."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found.group(1)), LONGEST) if found else 0


def until(settled: Callable[[], bool], seconds: int) -> None:
    end = clock.monotonic() + seconds
    while clock.monotonic() < end and not settled():
        clock.sleep(_POLL)


def applied(response: Response, seconds: int) -> Response:
    if seconds:
        response["Preference-Applied"] = f"wait={seconds}"
    return response
