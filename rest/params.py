"""Reading what a client sends, strictly: a name that is not known is an error, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request

# What the framework itself reads from a URL.
FRAMEWORK_PARAMS = frozenset({"format"})

UNKNOWN = "This parameter is not known here."
ONCE = "Give this once."


class Strict(serializers.Serializer[Any]):
    """A serializer of input in which unknown names are errors."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping):
            unknown = set(data) - set(self.fields) - {"csrfmiddlewaretoken"}
            if unknown:
                raise serializers.ValidationError({name: [UNKNOWN] for name in sorted(unknown)})
        value: dict[str, Any] = super().to_internal_value(data)
        return value


class Query(Strict):
    """A serializer of a query string. List fields are the repeatable parameters."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, QueryDict):
            repeated = [
                name
                for name, values in data.lists()
                if len(values) > 1 and not isinstance(self.fields.get(name), serializers.ListField)
            ]
            if repeated:
                raise serializers.ValidationError({name: [ONCE] for name in repeated})
            data = {
                name: data.getlist(name) if isinstance(self.fields.get(name), serializers.ListField) else data[name]
                for name in data
                if name not in FRAMEWORK_PARAMS
            }
        return super().to_internal_value(data)


class Paged(Query):
    limit = serializers.IntegerField(min_value=1, max_value=500, default=50)
    offset = serializers.IntegerField(min_value=0, max_value=10_000_000, default=0)


def read_query(serializer_class: type[Query], request: Request) -> dict[str, Any]:
    """The checked query of `request`; raises a 400 which names each bad parameter."""
    serializer = serializer_class(data=request.query_params)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def number(*, least: str = "0", most: str, **kwargs: Any) -> serializers.DecimalField:
    """A finite decimal within bounds: NaN, Infinity, and numbers beyond `most` are refused by name."""
    return serializers.DecimalField(
        max_digits=20, decimal_places=9, min_value=Decimal(least), max_value=Decimal(most), **kwargs
    )
