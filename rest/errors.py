"""One shape for every error, and JSON for all of them, unknown routes included.

`{"error": sentence, "error_type": code, "fields": {name: [sentence]}, "request_id": id}`

What the embedded web server refuses by itself has it too (`gpushopper.refusals`). gunicorn, in production, lets
bodies of any size come to our own 413, but answers a head that it can't read with a page of its own.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from rest_framework import exceptions, status
from rest_framework.response import Response

from rest.request_id import current as current_request_id

log = logging.getLogger(__name__)

NON_FIELD = "non_field_errors"


class Problem(exceptions.APIException):
    """An error that a client can act on: a status, a code, a sentence, and the fields at fault."""

    def __init__(
        self,
        error_type: str,
        error: str,
        *,
        status_code: int = status.HTTP_400_BAD_REQUEST,
        fields: dict[str, list[str]] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(error, error_type)
        self.status_code = status_code
        self.error_type = error_type
        self.fields = fields or {}
        if retry_after is not None:
            self.wait = retry_after  # the name DRF reads for Retry-After


def bad_field(name: str, sentence: str, *, error_type: str = "invalid_request") -> Problem:
    return Problem(error_type, f"{name}: {sentence}", fields={name: [sentence]})


def conflict(error_type: str, error: str) -> Problem:
    return Problem(error_type, error, status_code=status.HTTP_409_CONFLICT)


def not_found(what: str) -> Problem:
    return Problem("not_found", f"No such {what}.", status_code=status.HTTP_404_NOT_FOUND)


# Of the SQL standard and PostgreSQL: what a query meets before the migrations have run.
_NOT_MIGRATED = ("42P01", "42703")  # undefined table, undefined column
RETRY_AFTER_SECONDS = 5


def is_away(exc: BaseException | None) -> bool:
    """The database does not answer, is full or locked, or is not migrated: not the client's fault, nor for ever."""
    if isinstance(exc, OperationalError | InterfaceError):
        return True
    return isinstance(exc, DatabaseError) and getattr(exc.__cause__, "sqlstate", None) in _NOT_MIGRATED


def not_ready() -> Problem:
    return Problem(
        "not_ready", "The service can't reach its database just now. Nothing you rented is lost by it; try again.",
        status_code=status.HTTP_503_SERVICE_UNAVAILABLE, retry_after=RETRY_AFTER_SECONDS,
    )  # fmt: skip


def envelope(error_type: str, error: str, fields: dict[str, list[str]] | None = None) -> dict[str, Any]:
    return {
        "error": error,
        "error_type": error_type,
        "fields": fields or {},
        "request_id": current_request_id(),
    }


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook: turn any exception that has an HTTP meaning into the one shape."""
    if isinstance(exc, Http404):
        exc = exceptions.NotFound("There is nothing here by that name.")
    elif isinstance(exc, PermissionDenied):
        exc = exceptions.PermissionDenied()
    elif is_away(exc):
        log.error("The database did not serve a request: %s. It is answered 503.", type(exc).__name__)
        exc = not_ready()
    if not isinstance(exc, exceptions.APIException):
        return None  # A bug of ours: Django logs it and `server_error` answers.
    response = Response(_body(exc), status=exc.status_code)
    if wait := getattr(exc, "wait", None):
        response["Retry-After"] = str(int(wait) or 1)
    if challenge := getattr(exc, "auth_header", None):
        response["WWW-Authenticate"] = challenge
    return response


def _body(exc: exceptions.APIException) -> dict[str, Any]:
    if isinstance(exc, Problem):
        return envelope(exc.error_type, str(exc.detail), exc.fields)
    if isinstance(exc, exceptions.ValidationError):
        fields = _flatten(exc.detail)
        return envelope("invalid_request", _summary(fields), fields)
    code = exc.get_codes()
    return envelope(code if isinstance(code, str) else exc.default_code, str(exc.detail))


def _flatten(detail: Any, name: str = "") -> dict[str, list[str]]:
    """DRF's nested details as flat `{"a.b": ["..."]}`."""
    if isinstance(detail, dict):
        flat: dict[str, list[str]] = {}
        for key, value in detail.items():
            inner = name if key == NON_FIELD or isinstance(key, int) else f"{name}.{key}" if name else str(key)
            for field, sentences in _flatten(value, inner).items():
                flat.setdefault(field, []).extend(sentences)
        return flat
    if isinstance(detail, list):
        if all(not isinstance(item, dict | list) for item in detail):
            return {name or "body": [str(item) for item in detail]}
        flat = {}
        for index, item in enumerate(detail):
            flat.update(_flatten(item, f"{name}[{index}]"))
        return flat
    return {name or "body": [str(detail)]}


def _summary(fields: dict[str, list[str]]) -> str:
    name, sentences = next(iter(fields.items()), ("body", ["Invalid."]))
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return f"{name}: {sentences[0]}{more}"


# --- What Django answers before or after DRF has had its say ------------------------------------------


def _answer(request: HttpRequest, code: int, error_type: str, error: str) -> HttpResponse:
    if request.path.startswith("/admin") and "text/html" in request.headers.get("Accept", ""):
        return render(request, "error.html", {"code": code, "error": error}, status=code)
    return JsonResponse(envelope(error_type, error), status=code)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 400, "invalid_request", "The request could not be read.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 403, "permission_denied", "You may not do that.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 404, "not_found", f"There is nothing at {request.path[:200]}. See /api/v1/docs.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(request, 403, "csrf_failed", "This form has grown old, or came from elsewhere. Load the page again.")


def server_error(request: HttpRequest) -> HttpResponse:
    if is_away(sys.exc_info()[1]):
        problem = not_ready()
        response = _answer(request, problem.status_code, problem.error_type, str(problem.detail))
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response
    return _answer(
        request, 500, "internal_error",
        "Something went wrong on our side; nothing you rented is lost by it. "
        "The log has the details under this request id.",
    )  # fmt: skip
