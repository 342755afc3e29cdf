"""`manage.py import_charges`: read the providers' bills now."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from costs import bills
from costs.days import day_of
from providers import clock, registry
from providers.base import Provider, ProviderError
from providers.money import written
from rest.admin import counted
from sessions.management import proof


class Command(BaseCommand):
    help = (
        "Read what the providers charge, day by day, and match it with our machines. The service does so each night; "
        "done again it changes nothing but what has grown since. "
        f"Exit code 0: every bill was read; 1: used wrongly; {proof.NOT_SEEN}: a bill could not be read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", metavar="DAY", help="YYYY-MM-DD, by UTC (default: what may have grown since)")
        parser.add_argument("--provider", help="only this one")

    def handle(self, *args: Any, **options: Any) -> None:
        since = _day(options["since"])
        failed = [name for name, provider in _providers(options["provider"]).items() if not self._read(provider, since)]
        for found in bills.unexplained(clock.now()):
            self.stdout.write(self.style.WARNING(f"{found.what} {found.advice}"))
        if failed:
            raise CommandError(f"Not read: {', '.join(failed)}. What was read before stands; it is tried again by "
                               "itself while the service runs.", returncode=proof.NOT_SEEN)  # fmt: skip

    def _read(self, provider: Provider, since: date | None) -> bool:
        if not provider.traits.has_charges:
            self.stdout.write(f"{provider.name}: has no list of charges")
            return True
        try:
            found = bills.read(provider, clock.now(), since=since)
        except ProviderError as error:
            self.stderr.write(f"{provider.name}: {error}")
            return False
        self.stdout.write(
            f"{provider.name}: {counted(found.lines, 'charge')} from {found.days.first} to {found.days.last}, "
            f"{written(found.amount)} USD"
        )
        return True


def _providers(only: str | None) -> dict[str, Provider]:
    enabled = dict(registry.all())
    if not enabled:
        raise proof.no_provider()
    if only and only not in enabled:
        raise CommandError(f"No such provider: {only}. Configured: {', '.join(sorted(enabled))}.")
    return {name: enabled[name] for name in ([only] if only else sorted(enabled))}


def _day(text: str | None) -> date | None:
    """At most a year back: each day is a call."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"--since: there is no day {text!r}; write YYYY-MM-DD.") from error
    today = day_of(clock.now())
    if not 0 <= (today - day).days <= 366:
        raise CommandError("--since: a day of the last year.")
    return day
