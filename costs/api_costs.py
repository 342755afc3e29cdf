"""The API's doors to what was spent: check what is asked, add up, answer as JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from costs import bills, budgets, forecast, ledger, metering
from costs.billing import Comparison
from costs.days import Days, day_of, month_of
from costs.ledger import Slice, Total, Which
from costs.models import UsageInterval
from providers import clock, registry
from providers.money import usd
from rest.access import consumer_filter, principal
from rest.csv import Table, TableDoor
from rest.errors import bad_field, not_found
from rest.params import Query
from sessions import api, shapes
from sessions.lifecycle import LIVE
from sessions.models import Session

CURRENCY = "USD"
DAILY, MONTHLY = "daily", "monthly"

# Each is a question to the database; a year and a leap day fit, with room for a month before and after.
MOST_SLICES = 430

EARLIEST, LATEST = date(1970, 1, 2), date(9990, 12, 31)


# --- What is asked ------------------------------------------------------------------------------------------------


class _Filters(Query):
    consumer_id = serializers.CharField(required=False, max_length=100)
    provider = serializers.CharField(required=False, max_length=40)
    period = serializers.ChoiceField([DAILY, MONTHLY], required=False, help_text="With a `series` of days or months.")

    def validate_provider(self, name: str) -> str:
        if name in registry.all() or UsageInterval.objects.filter(provider=name).exists():
            return name
        known = ", ".join(sorted(registry.all())) or "none is configured"
        raise serializers.ValidationError(f"No such provider. Known: {known}.")


class CostsQuery(_Filters):
    session_id = serializers.UUIDField(required=False)
    start_date = serializers.DateField(required=False, help_text="A day by UTC, included. Default: the first usage.")
    end_date = serializers.DateField(required=False, help_text="A day by UTC, included. Default: today.")

    def validate_start_date(self, day: date) -> date:
        return within_reason(day)

    def validate_end_date(self, day: date) -> date:
        return within_reason(day)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        first, last = attrs.get("start_date"), attrs.get("end_date")
        if first and last and last < first:
            raise serializers.ValidationError({"end_date": ["It is before start_date."]})
        return attrs


class SummaryQuery(_Filters):
    pass


def within_reason(day: date) -> date:
    if not EARLIEST <= day <= LATEST:
        raise serializers.ValidationError(f"A day from {EARLIEST} to {LATEST}.")
    return day


# --- What is answered ---------------------------------------------------------------------------------------------


class SliceShape(serializers.Serializer[Any]):
    start = serializers.DateField(help_text="Its first day.")
    total_cost = serializers.FloatField()
    hours_used = serializers.FloatField()


class TotalShape(serializers.Serializer[Any]):
    consumer_id = serializers.CharField(allow_null=True, help_text="Null: everybody.")
    total_cost = serializers.FloatField(help_text="Days add up to their month, to the last digit.")
    currency = serializers.ChoiceField([CURRENCY])
    session_count = serializers.IntegerField()
    hours_used = serializers.FloatField(help_text="Of all machines together.")
    by_provider = serializers.DictField(child=serializers.FloatField())
    by_gpu_type = serializers.DictField(child=serializers.FloatField())
    orphan_cost = serializers.FloatField(help_text="Of which: machines that no consumer stood for. Operators see it.")
    period_start = serializers.DateField()
    period_end = serializers.DateField(help_text="Included.")
    series = SliceShape(many=True, required=False)


class SummaryShape(TotalShape):
    forecast = serializers.FloatField(
        help_text="The month's cost when each live session runs until its deadline, or the month ends."
    )


class PartsShape(serializers.Serializer[Any]):
    compute = serializers.FloatField(help_text="GPU, CPU and RAM.")
    storage = serializers.FloatField()


class SessionCostShape(serializers.Serializer[Any]):
    session_id = serializers.UUIDField()
    total_cost = serializers.FloatField()
    currency = serializers.ChoiceField([CURRENCY])
    hours_used = serializers.FloatField()
    parts = PartsShape()
    provider_billed = serializers.FloatField(allow_null=True, help_text="Null: the provider has told nothing yet.")
    difference = serializers.FloatField(allow_null=True, help_text="Billed less counted.")
    billed_final = serializers.BooleanField(help_text="The bill was read a day after the end, or later.")
    final = serializers.BooleanField(help_text="It is proven gone: it costs nothing more.")
    forecast = serializers.FloatField(help_text="The whole cost when it runs until its deadline.")
    series = SliceShape(many=True, required=False)


COST = PolymorphicProxySerializer(
    component_name="Cost", serializers=[TotalShape, SessionCostShape], resource_type_field_name=None
)


def or_csv(shape: Any) -> dict[Any, Any]:
    return {(200, "application/json"): shape, (200, "text/csv"): OpenApiTypes.STR}


# --- The doors ------------------------------------------------------------------------------------------------------


class Costs(TableDoor):
    queries = {"GET": CostsQuery}

    @extend_schema(parameters=[CostsQuery], responses=or_csv(COST))
    def get(self, request: Request) -> Response:
        """What was spent: on one's own sessions (an operator: everybody's), on one of them, or at one provider.

        As CSV: a line for each session, or with `period` for each day or month.
        """
        now = clock.now()
        which = _which(request, self.query)
        session = _session(request, which)
        days = _days(which, self.query, now)
        series = _series(which, days, self.query, now)
        if self.wants_csv:
            return self.table(_table(which, days, series, now))
        shown = _session_json(session, which, days, now) if session else _total_json(which, days, now)
        return Response({**shown, **_series_json(series)})


class Summary(TableDoor):
    queries = {"GET": SummaryQuery}

    @extend_schema(parameters=[SummaryQuery], responses=or_csv(SummaryShape))
    def get(self, request: Request) -> Response:
        """The current month, by UTC, and what it will have cost if everything runs until its deadline."""
        now = clock.now()
        which, days = _which(request, self.query), month_of(day_of(now))
        series = _series(which, days, self.query, now)
        if self.wants_csv:
            return self.table(_table(which, days, series, now))
        found = ledger.total(which, days.since, days.until, now)
        foretold = {"forecast": shapes.money(found.cost + _to_come(which, days, now))}
        return Response({**_shown(found, which, days), **foretold, **_series_json(series)})


def _to_come(which: Which, days: Days, now: datetime) -> int:
    ahead = forecast.ahead(forecast.live(which.consumer, which.provider), days.until, now)
    nobodys = forecast.kept(days.until, now, which.provider) if which.consumer is None else {}
    return sum(ahead.values()) + sum(nobodys.values())


def _which(request: Request, query: Mapping[str, Any]) -> Which:
    consumer = consumer_filter(request, query.get("consumer_id"))
    if consumer is not None and principal(request).is_operator and not budgets.is_consumer(consumer):
        raise bad_field("consumer_id", "There is no such consumer.")
    return Which(consumer=consumer, provider=query.get("provider"), session=query.get("session_id"))


def _session(request: Request, which: Which) -> Session | None:
    if which.session is None:
        return None
    session = api.find(request, which.session)
    if which.consumer not in (None, session.consumer):
        raise not_found("session")
    return session


def _days(which: Which, query: Mapping[str, Any], now: datetime) -> Days:
    """The days that are asked for; by default from the first usage until today."""
    today, last = day_of(now), query.get("end_date")
    first = query.get("start_date")
    if first is None:
        began = ledger.began(which)
        first = min(day_of(began) if began else today, last or today)
    return Days(first, last or max(today, first))


def _series(which: Which, days: Days, query: Mapping[str, Any], now: datetime) -> list[Slice] | None:
    period = query.get("period")
    if period is None:
        return None
    slices = list(islice(days.each_day() if period == DAILY else days.each_month(), MOST_SLICES + 1))
    if len(slices) > MOST_SLICES:
        raise bad_field("period", f"At most {MOST_SLICES} at once: narrow start_date and end_date.")
    return ledger.series(which, slices, now)


# --- What they answer -----------------------------------------------------------------------------------------------


def _hours(microseconds: int) -> float:
    return shapes.hours(timedelta(microseconds=microseconds))


def _total_json(which: Which, days: Days, now: datetime) -> dict[str, Any]:
    return _shown(ledger.total(which, days.since, days.until, now), which, days)


def _shown(found: Total, which: Which, days: Days) -> dict[str, Any]:
    return {
        "consumer_id": which.consumer,
        "total_cost": shapes.money(found.cost),
        "currency": CURRENCY,
        "session_count": found.sessions,
        "hours_used": _hours(found.microseconds),
        "by_provider": {name: shapes.money(cost) for name, cost in found.by_provider.items()},
        "by_gpu_type": {name or "unknown": shapes.money(cost) for name, cost in found.by_gpu_type.items()},
        "orphan_cost": shapes.money(found.orphans),
        "period_start": days.first.isoformat(),
        "period_end": days.last.isoformat(),
    }


def _session_json(session: Session, which: Which, days: Days, now: datetime) -> dict[str, Any]:
    found = ledger.total(which, days.since, days.until, now)
    billed = bills.billed(session.pk, days, which.provider)
    compared = Comparison(found.cost, billed)
    ahead = forecast.ahead([session], forecast.EVER_AFTER, now) if session.status in LIVE else {}
    so_far = ledger.costs_of([session.pk], now)[session.pk]
    return {
        "session_id": str(session.pk),
        "total_cost": shapes.money(found.cost),
        "currency": CURRENCY,
        "hours_used": _hours(found.microseconds),
        "parts": {"compute": shapes.money(found.compute), "storage": shapes.money(found.storage)},
        "provider_billed": optional_money(billed),
        "difference": optional_money(compared.difference),
        "billed_final": bills.is_settled(list(found.by_provider), session.stopped_at),
        "final": session.is_over,
        "forecast": shapes.money(so_far + ahead.get(session.pk, 0)),
    }


def optional_money(micros: int | None) -> float | None:
    return None if micros is None else shapes.money(micros)


def _series_json(series: Sequence[Slice] | None) -> dict[str, Any]:
    if series is None:
        return {}
    return {
        "series": [
            {"start": each.days.first.isoformat(), "total_cost": shapes.money(each.cost),
             "hours_used": _hours(each.microseconds)}
            for each in series
        ]
    }  # fmt: skip


# --- As tables --------------------------------------------------------------------------------------------------------


def _table(which: Which, days: Days, series: Sequence[Slice] | None, now: datetime) -> Table:
    if series is None:
        return _by_session(which, days, now)
    rows = (
        (each.days.first.isoformat(), _decimal_hours(each.microseconds), usd(each.cost), CURRENCY) for each in series
    )
    return Table("costs", ("start", "hours_used", "total_cost", "currency"), rows)


def _by_session(which: Which, days: Days, now: datetime) -> Table:
    """The lines add up to the total that JSON shows, to the last digit."""
    found = ledger.amounts(which, days.since, days.until, now, by=("session", "consumer", "provider", "gpu_type"))
    keys = sorted(found, key=str)
    shares = metering.apportion([found[key].total for key in keys], ledger.before(which, days.since, now))
    rows = (
        (str(key[0] or ""), *key[1:], _decimal_hours(found[key].microseconds), usd(share), CURRENCY)
        for key, share in zip(keys, shares, strict=True)
    )
    columns = ("session_id", "consumer_id", "provider", "gpu_type", "hours_used", "total_cost", "currency")
    return Table("costs", columns, rows)


def _decimal_hours(microseconds: int) -> Decimal:
    return Decimal(str(_hours(microseconds)))
