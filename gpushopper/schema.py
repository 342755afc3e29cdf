"""The OpenAPI description: what drf-spectacular finds in the views, and the errors that every view may answer.

Django REST framework imports this with its first view, so there are no views in here (`gpushopper.docs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

ERROR = {
    "type": "object",
    "description": "The one shape of every error.",
    "required": ["error", "error_type", "fields", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "A sentence for a person."},
        "error_type": {"type": "string", "description": "A code for a program."},
        "fields": {
            "type": "object",
            "description": "What is wrong, by the name of each parameter at fault.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "request_id": {"type": "string", "description": "Also in the `X-Request-ID` header and in the log."},
    },
    "additionalProperties": False,
}
ALWAYS = {
    400: "A bad or unknown parameter; `fields` names each.",
    405: "Not a method of this path.",
    503: "Not ready; `Retry-After` says when to try again.",
}
WITH_A_KEY = {
    401: "No key, or one that is not known, has expired or is revoked.",
    403: "The key's role does not allow it.",
    406: "None of the formats in `Accept` is spoken here.",
}
CHANGES = {
    409: "It conflicts with the current state; `error_type` says how.",
    413: "The body has more than 1 MiB.",
    415: "The body is not `application/json`.",
    429: "Too many; `Retry-After` says when to try again.",
}
ONE_THING = {404: "There is no such thing, or it is somebody else's."}
# What only some operations answer, by operation id.
ALSO = {
    "postSessions": {404: "No such offer on the menu.", 422: "The `Idempotency-Key` was used with another body."},
    "getDiagnostics": {409: "The session is not running."},
    "getSshKey": {410: "The key is not kept any more."},
    "getMetrics": {401: "METRICS_TOKEN is set, and was not sent."},
}


class Operation(AutoSchema):
    def get_operation_id(self) -> str:
        return f"{self.method.lower()}{type(self.view).__name__.removesuffix('View')}"

    def get_tags(self) -> list[str]:
        words = self._tokenize_path()
        return [words[0] if "/api/" in self.path else "service"]


class BearerKey(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "gpushopper.authentication.KeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "`manage.py create_consumer NAME` makes one."}


class Browser(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "gpushopper.authentication.AdminAuthentication"
    name = "administrator"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "Logged in at /admin/."}


def without_slash(endpoints: list[tuple[str, str, str, Any]], **kwargs: Any) -> list[tuple[str, str, str, Any]]:
    """Both spellings of a path answer; the slashless one is described."""
    return [(path.rstrip("/"), regex, method, view) for path, regex, method, view in endpoints]


def with_errors(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Each operation lists the errors that it may answer with, in their one shape."""
    components = result["components"]
    components["schemas"]["Error"] = ERROR
    components["securitySchemes"]["metricsToken"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "METRICS_TOKEN.",
    }
    for path, method, operation in _operations(result):
        for code, sentence in _errors_of(path, method, operation).items():
            operation["responses"].setdefault(str(code), _answer(sentence))
        operation["responses"] = dict(sorted(operation["responses"].items()))
    return result


def _operations(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _errors_of(path: str, method: str, operation: dict[str, Any]) -> dict[int, str]:
    return {
        **ALWAYS,
        **(WITH_A_KEY if any("apiKey" in scheme for scheme in operation.get("security", [])) else {}),
        **(CHANGES if method != "GET" else {}),
        **(ONE_THING if "{" in path else {}),
        **ALSO.get(operation["operationId"], {}),
    }


def _answer(sentence: str) -> dict[str, Any]:
    shape = {"$ref": "#/components/schemas/Error"}
    return {"description": sentence, "content": {"application/json": {"schema": shape}}}
