"""A name for every request: taken from `X-Request-ID` if it is harmless, else made; echoed; logged."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

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
        response = get_response(request)
        response["X-Request-ID"] = request_id
        return response

    return name_the_request
