"""`manage.py cost_report`: a month as we counted it, beside what was charged."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from costs import bills, report
from costs.billing import Comparison
from costs.days import Days, day_of, month_of
from costs.report import ProviderLine, Report, SessionLine
from providers import clock
from providers.money import usd
from rest.csv import text_of
from sessions.next_step import distance

HEADINGS = ("Session", "Consumer", "Provider", "Counted", "Billed", "Difference", "Error")


class Command(BaseCommand):
    help = (
        "Show for a month what each session and each provider cost by our count and by the provider's bill, with the "
        "error in per cent of the bill. `manage.py import_charges` reads the bills."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", metavar="YYYY-MM", help="by UTC (default: this one)")
        parser.add_argument("--csv", action="store_true", help="a line for each session, for a spreadsheet")

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        found = report.of(_month(options["month"]) or month_of(day_of(now)), now)
        if options["csv"]:
            self.stdout.write(text_of(report.sessions_table(found)), ending="")
            return
        self.stdout.write(f"{found.days.first} to {found.days.last}, USD\n")
        self._show(found)
        for line in found.providers:
            self.stdout.write(
                f"{line.provider}: {_basis(line) if _has_any(line) else 'nothing counted, nothing charged'}"
            )
            if line.read_at:
                self.stdout.write(f"  the bill was read {distance(line.read_at, now)}")
            if line.error:
                self.stdout.write(self.style.WARNING(f"  the last attempt failed: {line.error}"))
        for unexplained in bills.unexplained(now):
            self.stdout.write(self.style.WARNING(f"{unexplained.what} {unexplained.advice}"))

    def _show(self, found: Report) -> None:
        lines = [HEADINGS, *(_session(line) for line in found.sessions)]
        lines += [
            ("", "", f"all of {line.provider}", *_money(line.money)) for line in found.providers if _has_any(line)
        ]
        if len(lines) == 1:
            return
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        for line in lines:
            self.stdout.write(_aligned(line, widths))
        self.stdout.write("")


def _session(line: SessionLine) -> tuple[str, ...]:
    name = str(line.session) if line.session else "(nobody's)"
    return name, line.consumer, line.provider, *_money(line.money)


def _money(money: Comparison) -> tuple[str, str, str, str]:
    error = money.error_percent
    return (
        f"{usd(money.estimated)}", _usd(money.billed), _usd(money.difference),
        "" if error is None else f"{error:+.4f} %",
    )  # fmt: skip


def _usd(micros: int | None) -> str:
    return "" if micros is None else f"{usd(micros)}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right."""
    cells = [cell.ljust(width) if column < 3 else cell.rjust(width)
             for column, (cell, width) in enumerate(zip(line, widths, strict=True))]  # fmt: skip
    return "  ".join(cells).rstrip()


def _has_any(line: ProviderLine) -> bool:
    """Something was counted or charged, or its account has lost something."""
    return bool(line.estimated or line.money.billed or line.network or line.unexplained or line.others)


def _basis(line: ProviderLine) -> str:
    """What its last line compares."""
    counted = f"{usd(line.estimated)} USD counted"
    if line.by == "nothing":
        return f"{counted}; no bill is known for it"
    if line.by == "balances":
        return f"{counted}; compared with what the account's balance lost between its first and last reading"
    parts = [(line.network, "of the bill for traffic"), (line.unexplained, "charged that no session explains"),
             (line.others, "charged under somebody else's name")]  # fmt: skip
    told = "".join(f", {usd(amount)} {what}" for amount, what in parts if amount)
    return f"{counted}, {usd(line.money.estimated)} of it charged for so far{told}"


def _month(text: str | None) -> Days | None:
    if text is None:
        return None
    try:
        return month_of(date.fromisoformat(f"{text}-02"))
    except (ValueError, OverflowError) as error:
        raise CommandError(f"--month: there is no month {text!r}; write YYYY-MM.") from error
