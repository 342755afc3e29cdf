"""No body over 1 MiB: 413 before anything reads it."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from rest.errors import envelope


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def refuse_what_is_too_big(request: HttpRequest) -> HttpResponse:
        length = request.headers.get("Content-Length") or "0"
        if length.isdigit() and int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return JsonResponse(envelope("request_too_large", "A request body may have at most 1 MiB."), status=413)
        return get_response(request)

    return refuse_what_is_too_big
