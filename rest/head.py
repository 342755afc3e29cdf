"""HEAD: what GET would say, without its body. Some servers (waitress) leave that to the application."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def leave_out_the_body(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.method == "HEAD" and not response.streaming:
            response.content = b""  # `Content-Length` stays: it tells of the body that GET would bring
        return response

    return leave_out_the_body
