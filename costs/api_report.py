"""The API's door to the report of a month: what we counted beside what was charged."""

from __future__ import annotations

from datetime import date
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from costs import report
from costs.api_costs import CURRENCY, optional_money, or_csv, within_reason
from costs.billing import Comparison
from costs.days import Days, day_of, month_of
from costs.report import ProviderLine, SessionLine
from providers import clock
from rest.access import IsOperator, principal
from rest.csv import TableDoor
from rest.params import Paged
from sessions import shapes


class ReportQuery(Paged):
    month = serializers.RegexField(r"\A[0-9]{4}-[0-9]{2}\Z", required=False, help_text="YYYY-MM; default: this one.")

    def validate_month(self, text: str) -> Days:
        try:
            return month_of(within_reason(date.fromisoformat(f"{text}-02")))
        except ValueError as error:
            raise serializers.ValidationError("There is no such month.") from error


class ComparedShape(serializers.Serializer[Any]):
    provider = serializers.CharField()
    estimated = serializers.FloatField(help_text="USD that we counted.")
    billed = serializers.FloatField(allow_null=True, help_text="Null: the provider has told nothing of it.")
    difference = serializers.FloatField(allow_null=True, help_text="Billed less what we counted for the same.")
    error_percent = serializers.FloatField(allow_null=True, help_text="How far our figure is off, of what was billed.")


class ProviderReportShape(ComparedShape):
    compared_by = serializers.ChoiceField(["charges", "balances", "nothing"])
    compared = serializers.FloatField(help_text="Of what we counted: that for which a bill is known.")
    network = serializers.FloatField(help_text="Of what was billed: traffic, which no price tells beforehand.")
    unexplained = serializers.FloatField(help_text="Billed for machines that no session explains.")
    others = serializers.FloatField(help_text="Billed for machines under somebody else's name.")
    read_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField(help_text="Why the bill could not be read the last time.")


class SessionReportShape(ComparedShape):
    session_id = serializers.UUIDField(allow_null=True, help_text="Null: machines that nobody stood for.")
    consumer_id = serializers.CharField()


class ReportShape(serializers.Serializer[Any]):
    period_start = serializers.DateField()
    period_end = serializers.DateField()
    currency = serializers.ChoiceField([CURRENCY])
    providers = ProviderReportShape(many=True)
    sessions = SessionReportShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class Report(TableDoor):
    queries = {"GET": ReportQuery}

    @extend_schema(parameters=[ReportQuery], responses=or_csv(ReportShape))
    def get(self, request: Request) -> Response:
        """A month as we counted it beside what was charged, by provider and by session. For operators."""
        if not principal(request).is_operator:
            raise exceptions.PermissionDenied(IsOperator.message)
        now, query = clock.now(), self.query
        found = report.of(query.get("month") or month_of(day_of(now)), now)
        if self.wants_csv:
            return self.table(report.sessions_table(found))
        page = found.sessions[query["offset"] : query["offset"] + query["limit"]]
        return Response({
            "period_start": found.days.first.isoformat(), "period_end": found.days.last.isoformat(),
            "currency": CURRENCY, "providers": [_provider_line(line) for line in found.providers],
            "sessions": [_session_line(line) for line in page], "count": len(page), "total": len(found.sessions),
        })  # fmt: skip


def _compared(provider: str, estimated: int, money: Comparison) -> dict[str, Any]:
    return {
        "provider": provider, "estimated": shapes.money(estimated), "billed": optional_money(money.billed),
        "difference": optional_money(money.difference), "error_percent": money.error_percent,
    }  # fmt: skip


def _provider_line(line: ProviderLine) -> dict[str, Any]:
    return {
        **_compared(line.provider, line.estimated, line.money), "compared_by": line.by,
        "compared": shapes.money(line.money.estimated), "network": shapes.money(line.network),
        "unexplained": shapes.money(line.unexplained), "others": shapes.money(line.others),
        "read_at": shapes.instant(line.read_at), "error": line.error,
    }  # fmt: skip


def _session_line(line: SessionLine) -> dict[str, Any]:
    session = str(line.session) if line.session else None
    compared = _compared(line.provider, line.money.estimated, line.money)
    return {"session_id": session, "consumer_id": line.consumer, **compared}
