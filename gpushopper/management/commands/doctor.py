"""`manage.py doctor`: is everything in place, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gpushopper import signals
from gpushopper.models import ApiKey
from providers import clock, registry
from providers.base import Provider, ProviderError, Unauthorized
from sessions.models import Account, Instance

WELL, DOUBTFUL, ILL = "ok", "warn", "FAIL"
Finding = tuple[str, str, str]  # verdict, what, what to do

CLOCK_OFF = timedelta(seconds=30)


class Command(BaseCommand):
    help = "Check keys, clock, database, broker, heartbeat and the providers' reach; say what to do."

    def handle(self, *args: Any, **options: Any) -> None:
        findings = list(self._findings())
        colour = {WELL: self.style.SUCCESS, DOUBTFUL: self.style.WARNING, ILL: self.style.ERROR}
        for verdict, what, advice in findings:
            self.stdout.write(f"{colour[verdict](f'{verdict:<5}')} {what}")
            if advice:
                self.stdout.write(f"      {advice}")
        ill = sum(verdict == ILL for verdict, _, _ in findings)
        if ill:
            raise CommandError(f"{ill} things need attention.")

    def _findings(self) -> Iterator[Finding]:
        yield from settings_findings()
        told = signals.database()
        yield (WELL, f"database {settings.DATABASES['default']['ENGINE'].rpartition('.')[2]}", "") if told == signals.OK else (
            ILL, f"database: {told}", "Without it nothing can be rented; what runs is ended by its dead man's switch.")  # fmt: skip
        if told != signals.OK:
            return
        yield from engine_findings()
        yield from key_findings()
        for provider in registry.all().values():
            yield from provider_findings(provider)
        yield from machine_findings()


def settings_findings() -> Iterator[Finding]:
    for name, problem in settings.SETTING_PROBLEMS.items():
        yield ILL, f"setting {name}: {problem}", f"Mend {name} in the environment or in .env."
    if settings.PRODUCTION and settings.MADE_UP_SECRETS:
        yield ILL, f"not set: {', '.join(settings.MADE_UP_SECRETS)}", "`manage.py make_secrets` prints a set for .env."
    if not settings.SETTING_PROBLEMS:
        yield WELL, f"settings; deployment {settings.DEPLOYMENT_ID}, data in {settings.DATA_DIR}", ""


def engine_findings() -> Iterator[Finding]:
    told = signals.broker()
    kind = "in-process broker" if settings.EMBEDDED else "broker"
    yield (WELL, kind, "") if told == signals.OK else (ILL, f"{kind}: {told}", "Check CELERY_BROKER_URL.")
    told = signals.lifecycle(clock.now())
    advice = "Start the service: `make run`, or in production the worker and beat containers."
    yield (WELL, "heartbeat of beat and workers", "") if told == signals.OK else (ILL, f"heartbeat: {told}", advice)


def key_findings() -> Iterator[Finding]:
    now = clock.now()
    live = [key for key in ApiKey.objects.all() if key.is_live(now)]
    if live:
        yield WELL, f"{len(live)} live API keys", ""
    else:
        yield DOUBTFUL, "no API key yet", "`manage.py create_consumer NAME` makes a consumer and prints its key."
    for name, problem in registry.load(settings.PROVIDER_ENV).problems.items():
        yield ILL, f"provider {name}: {problem}", ""
    if not registry.all():
        what = "the sandbox is used" if settings.SANDBOX else "nothing can be rented"
        yield (
            DOUBTFUL,
            f"no provider key is set: {what}",
            "Set VASTAI_API_KEY or TENSORDOCK_API_TOKEN to rent for real.",
        )


def provider_findings(provider: Provider) -> Iterator[Finding]:
    name = provider.name
    try:
        account = provider.account()
    except Unauthorized as error:
        yield ILL, f"{name}: the key is rejected ({error})", "Make a new key there. Running sessions stay as they are."
        return
    except ProviderError as error:
        yield ILL, f"{name}: no answer ({error})", "Look at its status page; nothing is concluded from its silence."
        return
    balance = "" if account.balance is None else f", balance {account.balance / 1_000_000:.2f} USD"
    yield WELL, f"{name}: the key works{f', account {account.id}' if account.id else ''}{balance}", ""
    yield from clock_findings(provider)
    row = Account.objects.filter(provider=name).first()
    if row is None or row.looked_at is None:
        yield DOUBTFUL, f"{name}: never listed completely", "`manage.py reconcile` lists it now."
    elif clock.now() - row.looked_at > timedelta(minutes=15):
        yield ILL, f"{name}: last complete listing at {row.looked_at:%Y-%m-%d %H:%M} UTC: {row.error}", \
            "Until it is listed again nothing new is created there."  # fmt: skip
    if row is not None and row.brake:
        yield ILL, f"{name}: {row.brake}", "Look at the adopted machines in the admin, then release the brake there."


def machine_findings() -> Iterator[Finding]:
    late = Instance.objects.filter(deadline__lt=clock.now() - timedelta(minutes=10)).exclude(state="destroyed")
    for row in late.exclude(machine_id=""):
        yield ILL, f"machine {row.machine_id} at {row.provider} outlives its deadline {row.deadline:%H:%M}", \
            f"Asked {row.asks} times. See it there, destroy it by hand if need be; it is asked for until it is gone."  # fmt: skip
    if not late.exists():
        yield WELL, "no machine outlives its deadline", ""


def clock_findings(provider: Provider) -> Iterator[Finding]:
    """Deadlines are kept by our clock: compared with the provider's `Date`."""
    url = getattr(provider, "base_url", "")
    told = _date_of(url) if url else None
    if told is None:
        return
    off = clock.now() - told
    if abs(off) > CLOCK_OFF:
        yield ILL, f"our clock is {off.total_seconds():+.0f} s off {provider.name}'s", "Deadlines follow it: start NTP."
    else:
        yield WELL, f"clock, within {CLOCK_OFF.total_seconds():.0f} s of {provider.name}'s", ""


def _date_of(url: str) -> datetime | None:
    try:
        told = requests.head(url, timeout=5, allow_redirects=False).headers.get("Date")
        return parsedate_to_datetime(told).astimezone(UTC) if told else None
    except (requests.RequestException, ValueError):
        return None
