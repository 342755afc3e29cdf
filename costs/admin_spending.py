"""The page about money: a month by day, what burns now, how budgets stand, what was charged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from costs import budgets, forecast, ledger, metering, pictures, report
from costs.days import Days, day_of, month_of
from costs.metering import Amount
from costs.models import Budget, Spending
from costs.report import Report, SessionLine
from providers import clock
from providers.money import MICROS_PER_USD, dollars, usd
from rest.admin import ReadOnly

NOBODY = "nobody"
COLUMNS = {"consumer": "consumer", "provider": "provider"}
# So many sessions with a bill, those first whose bill is furthest from what we counted.
SESSIONS_SHOWN = 20


class Chosen(forms.Form):
    month = forms.RegexField(r"\A[0-9]{4}-[0-9]{2}\Z", required=False)
    by = forms.ChoiceField(choices=[(name, name) for name in COLUMNS], required=False)

    def clean_month(self) -> Days | None:
        text = self.cleaned_data["month"]
        try:
            return month_of(date.fromisoformat(f"{text}-01")) if text else None
        except (ValueError, OverflowError) as error:
            raise ValidationError("There is no such month.") from error


@admin.register(Spending)
class SpendingAdmin(ReadOnly):
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        now, chosen = clock.now(), Chosen(request.GET or None)
        said = chosen.cleaned_data if chosen.is_valid() else {}
        if chosen.errors:
            messages.warning(request, f"Not understood: {', '.join(sorted(chosen.errors))}. A month is YYYY-MM.")
        page = _page(said.get("month") or month_of(day_of(now)), said.get("by") or "consumer", now)
        context = {**self.admin_site.each_context(request), "title": "Costs", **page, **(extra_context or {})}
        return TemplateResponse(request, "admin/costs.html", context)

    def get_urls(self) -> list[Any]:
        """One page; there is none for a single row, which `UsageInterval` has."""
        return [each for each in super().get_urls() if each.name and each.name.endswith("_changelist")]


def _page(month: Days, by: str, now: datetime) -> dict[str, Any]:
    today = day_of(now)
    shown = Days(month.first, max(month.first, min(month.last, today)))
    used = ledger.by_day(COLUMNS[by], shown, now)
    report_ = report.of(month, now)
    return {
        "now": now, "month": month, "by": by, "others": [name for name in COLUMNS if name != by],
        "earlier": _month_before(month), "later": _month_after(month, today),
        "chart": pictures.stacked([each.first for each in month.each_day()], _named(used)),
        "table": _table(used),
        "tiles": _tiles(month, used, now),
        "burning": _burning(by, now),
        "budgets": _budgets(now),
        "providers": [_provider(line) for line in report_.providers],
        "sessions": list(_sessions(report_)), "sessions_total": _billed_sessions(report_),
        "report_csv": f"{reverse('costs-report')}?month={month.first:%Y-%m}&format=csv",
    }  # fmt: skip


def _month_before(month: Days) -> Days | None:
    return month_of(date.fromordinal(month.first.toordinal() - 1)) if month.first.year > 2000 else None


def _month_after(month: Days, today: date) -> Days | None:
    return month_of(date.fromordinal(month.last.toordinal() + 1)) if month.last < today else None


def _name(name: str) -> str:
    return name or NOBODY


def _named(used: Mapping[tuple[date, str], Amount]) -> dict[tuple[date, str], int]:
    return {(day, _name(name)): metering.micros(amount.total) for (day, name), amount in used.items()}


# --- The numbers beside the picture ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbers:
    """A line for each day with usage, the latest first, below their sums; each figure is rounded for itself."""

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[tuple[str, str]]]]  # each with its column's name: phones show it there


def _table(used: Mapping[tuple[date, str], Amount]) -> Numbers:
    names = pictures.ranked({key: amount.total for key, amount in used.items()})
    days_used = sorted({day for day, _ in used}, reverse=True)
    whole = metering.micros(metering.total(used.values()).total)
    digits = 2 if whole >= 10 * MICROS_PER_USD else 4

    columns = [*(_name(name) for name in names), "Together"]

    def cells(chosen: Sequence[date]) -> list[tuple[str, str]]:
        each = [metering.total(used.get((day, name), metering.NOTHING) for day in chosen) for name in names]
        shown = [metering.micros(amount.total) for amount in [*each, metering.total(each)]]
        texts = [f"${usd(micros):,.{digits}f}" if micros else "" for micros in shown]
        return list(zip(columns, texts, strict=True))

    lines = [(f"{day:%Y-%m-%d}", cells([day])) for day in days_used]
    return Numbers(columns, [("All days", cells(days_used)), *lines] if lines else [])


def _tiles(month: Days, used: Mapping[tuple[date, str], Amount], now: datetime) -> Iterator[dict[str, str]]:
    burn = ledger.burn(now)
    yield {"title": "Burning now", "value": f"{dollars(burn)}/h", "note": f"{dollars(burn * 24)} a day, if it stays"}
    spent = metering.micros(metering.total(used.values()).total)
    hours = metering.total(used.values()).microseconds / 3_600_000_000
    yield {"title": f"{month.first:%B %Y}", "value": dollars(spent), "note": f"{hours:,.1f} machine hours"}
    if month.first <= day_of(now) <= month.last:
        ahead = sum(forecast.ahead_by("provider", month.until, now).values())
        note = f"{dollars(ahead)} more, if what lives runs until its deadline"
        yield {"title": "Forecast", "value": dollars(spent + ahead), "note": note}
    orphans = metering.total(amount for (_, name), amount in used.items() if not name)
    if orphans.total:
        note = "of which: machines that no consumer stood for"
        yield {"title": "Nobody's", "value": dollars(metering.micros(orphans.total)), "note": note, "mood": "warn"}


def _burning(by: str, now: datetime) -> list[dict[str, str]]:
    """What each costs now, and will still cost until the deadlines of its sessions."""
    rates, ahead = ledger.burn_by(COLUMNS[by]), forecast.ahead_by(COLUMNS[by], forecast.EVER_AFTER, now)
    names = sorted({*rates, *ahead}, key=lambda name: (-rates.get(name, 0), name))
    return [
        {"name": _name(name), "rate": f"{dollars(rates.get(name, 0))}/h", "ahead": dollars(ahead.get(name, 0))}
        for name in names
    ]


def _budgets(now: datetime) -> Iterator[dict[str, Any]]:
    for outlook in budgets.outlooks(list(Budget.objects.all()), now):
        budget, room = outlook.budget, outlook.standing
        yield {
            "budget": budget,
            "link": reverse("admin:costs_budget_change", args=[budget.pk]),
            "bar": pictures.bar(room.limit, room.spent, room.reserved, budget.thresholds),
            "limit": dollars(room.limit), "spent": dollars(room.spent), "reserved": dollars(room.reserved),
            "left": dollars(room.remaining), "forecast": dollars(outlook.forecast),
            "is_beyond": outlook.forecast > room.limit, "notice": outlook.notice,
        }  # fmt: skip


# --- What was charged -----------------------------------------------------------------------------------------


def _money(micros: int | None) -> str:
    return "" if micros is None else dollars(micros)


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:+.2f} %"


def _provider(line: report.ProviderLine) -> dict[str, Any]:
    return {
        "line": line, "counted": dollars(line.estimated), "compared": dollars(line.money.estimated),
        "billed": _money(line.money.billed), "difference": _money(line.money.difference),
        "error": _percent(line.money.error_percent), "network": dollars(line.network) if line.network else "",
        "unexplained": dollars(line.unexplained) if line.unexplained else "",
    }  # fmt: skip


def _billed(found: Report) -> list[SessionLine]:
    return [line for line in found.sessions if line.session and line.money.billed is not None]


def _billed_sessions(found: Report) -> int:
    return len(_billed(found))


def _sessions(found: Report) -> Iterator[dict[str, str]]:
    furthest = sorted(_billed(found), key=lambda line: -abs(line.money.difference or 0))
    for line in furthest[:SESSIONS_SHOWN]:
        assert line.session is not None
        yield {
            "id": line.session.hex[:8],
            "link": reverse("admin:gpu_sessions_session_change", args=[line.session]),
            "consumer": line.consumer, "provider": line.provider, "counted": dollars(line.money.estimated),
            "billed": _money(line.money.billed), "difference": _money(line.money.difference),
            "error": _percent(line.money.error_percent),
        }  # fmt: skip
