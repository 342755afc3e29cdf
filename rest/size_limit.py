"""No body over 1 MiB: 413 before anything reads it."""

from __future__ import annotations

import io
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from rest.errors import envelope

TOO_LARGE = ("request_too_large", "A request body may have at most 1 MiB.")


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def refuse_what_is_too_big(request: HttpRequest) -> HttpResponse:
        if _length(request) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return JsonResponse(envelope(*TOO_LARGE), status=413)
        return get_response(request)

    return refuse_what_is_too_big


def _length(request: HttpRequest) -> int:
    told = request.META.get("CONTENT_LENGTH") or ""
    if told.isdigit():
        return int(told)
    # A body in chunks tells no length, and Django reads such a one as empty. Where the server marks its end
    # (gunicorn does; waitress tells a length), it is read here, up to the limit.
    if not request.META.get("wsgi.input_terminated"):
        return 0
    body = request.META["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = io.BytesIO(body)
    return len(body)
