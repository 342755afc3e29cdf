"""Reading what a client sends, strictly: a name that is not known is an error, never ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

from rest.errors import NON_FIELD, bad_field

# What the framework itself reads from a URL.
FRAMEWORK_PARAMS = frozenset({"format"})

UNKNOWN = "This parameter is not known here."
ONCE = "Give this once."


class Strict(serializers.Serializer[Any]):
    """A serializer of input in which unknown names are errors. All that is wrong is told at once."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return self._read(data, self._unknown(data))

    def _unknown(self, data: Any) -> dict[str, list[str]]:
        names = set(data) - set(self.fields) - {"csrfmiddlewaretoken"} if isinstance(data, Mapping) else ()
        return {str(name)[:100]: [UNKNOWN] for name in sorted(names)[:20]}

    def _read(self, data: Any, misnamed: dict[str, list[str]]) -> dict[str, Any]:
        try:
            value: dict[str, Any] = super().to_internal_value(data)
        except serializers.ValidationError as error:
            found = error.detail if isinstance(error.detail, dict) else {NON_FIELD: error.detail}
            raise serializers.ValidationError({**found, **misnamed}) from error
        if misnamed:
            raise serializers.ValidationError(misnamed)
        return value


class Query(Strict):
    """A serializer of a query string. List fields are the repeatable parameters."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, QueryDict):
            return super().to_internal_value(data)
        repeated = {name: [ONCE] for name, values in data.lists() if len(values) > 1 and not self._is_list(name)}
        given = {
            name: data.getlist(name) if self._is_list(name) else data[name]
            for name in data
            if name not in FRAMEWORK_PARAMS
        }
        return self._read(given, {**self._unknown(given), **repeated})

    def _is_list(self, name: str) -> bool:
        return isinstance(self.fields.get(name), serializers.ListField)


class Paged(Query):
    limit = serializers.IntegerField(min_value=1, max_value=500, default=50)
    offset = serializers.IntegerField(min_value=0, max_value=10_000_000, default=0)


def read_query(serializer_class: type[Query], request: Request) -> dict[str, Any]:
    """The checked query of `request`; raises a 400 which names each bad parameter."""
    serializer = serializer_class(data=request.query_params)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class Nothing(Strict):
    """A body without fields."""


def check_body(serializer_class: type[Strict], request: Request) -> dict[str, Any]:
    """The checked body of `request`; raises a 400 which names each bad field."""
    if not isinstance(request.data, dict):
        raise bad_field("body", "Send one JSON object.")
    serializer = serializer_class(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


class Number(serializers.FloatField):
    """A finite number within bounds, read as the decimal that was written; `0.3333333333333333` is one too."""

    def to_internal_value(self, data: Any) -> Any:
        text = "" if isinstance(data, bool) else str(data).strip() if isinstance(data, str | int | float) else ""
        if not _NUMBER.fullmatch(text):
            self.fail("invalid")
        return Decimal(text)


def number(*, least: str = "0", most: str, **kwargs: Any) -> Number:
    """NaN, Infinity, what is negative, and what is beyond `most` are refused by name."""
    return Number(min_value=Decimal(least), max_value=Decimal(most), **kwargs)  # type: ignore[arg-type]
