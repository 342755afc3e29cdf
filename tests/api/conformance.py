"""Whether answers are what the OpenAPI description says: a client that checks each one it gets."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator, FormatChecker
from rest_framework.test import APIClient


@cache
def schema() -> dict[str, Any]:
    described: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return described


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    # Paths without variables first: `/sessions` is no `/{id}`.
    ordered = sorted(schema()["paths"].items(), key=lambda entry: entry[0].count("{"))
    return [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + r"\Z"), methods) for path, methods in ordered]


def operation(method: str, path: str) -> dict[str, Any] | None:
    """The description of what was asked; None for a path or a method that is not described."""
    bare = path.split("?")[0].rstrip("/")
    found = next((methods for pattern, methods in _paths() if pattern.match(bare)), {})
    described: dict[str, Any] | None = found.get("get" if method == "HEAD" else method.lower())
    return described


def complaints(method: str, path: str, answer: Any) -> list[str]:
    """What in the answer is not as described."""
    described = operation(method, path)
    if described is None:
        return (
            []
            if answer.status_code in (401, 403, 404, 405) or method == "OPTIONS"
            else [f"{method} {path} is not described"]
        )
    expected = described["responses"].get(str(answer.status_code))
    if expected is None:
        return [f"{method} {path}: {answer.status_code} is not described"]
    content = expected.get("content", {}).get("application/json")
    if content is None or method == "HEAD" or not answer.content:
        return []
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in _errors(content["schema"], answer)
    ]


def _errors(shape: dict[str, Any], answer: Any) -> Any:
    whole = {**shape, "components": schema()["components"]}
    return Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(answer.json())


class CheckingClient(APIClient):
    """An API client that fails the test when an answer is not as described."""

    def generic(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        answer = super().generic(method, path, *args, **kwargs)
        if path.startswith(("/api/v1/schema", "/api/v1/docs")):
            return answer  # what describes is not described
        if path.startswith("/api/v1/") or path.rstrip("/") in ("/health", "/ready"):
            found = complaints(method, path, answer)
            assert not found, (found, answer.content[:500])
        if answer.status_code >= 400 and path.startswith("/api/v1/") and method != "HEAD":
            assert answer.json()["request_id"] == answer["X-Request-ID"]
        return answer
