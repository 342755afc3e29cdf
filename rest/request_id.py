"""A name for every request: taken from `X-Request-ID` if it is harmless, else made; echoed; logged.

Its log line has the path without the query: what a client puts there by mistake stays out of the log.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

log = logging.getLogger(__name__)

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}")


def current() -> str:
    """The id of the request at hand; "" outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def name_the_request(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = time.perf_counter()
        try:
            response = get_response(request)
            response["X-Request-ID"] = request_id
            _note(request, response.status_code, time.perf_counter() - began)
            return response
        finally:
            structlog.contextvars.clear_contextvars()  # The thread's next lines are of no request.

    return name_the_request


def _note(request: HttpRequest, status: int, seconds: float) -> None:
    """Changes and refusals are of interest; what only looks is for those who debug."""
    level = logging.INFO if request.method not in ("GET", "HEAD", "OPTIONS") or status >= 400 else logging.DEBUG
    log.log(level, "%s %s: %d in %.0f ms", request.method, request.path[:200], status, seconds * 1000)
