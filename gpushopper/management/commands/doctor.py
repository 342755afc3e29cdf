"""`manage.py doctor`: is everything in place, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gpushopper import alarms, signals
from gpushopper.models import ApiKey
from providers import clock, registry
from providers.base import Provider, ProviderError, Unauthorized
from sessions.models import Account, Heartbeat
from sessions.next_step import distance

WELL, DOUBTFUL, ILL = "ok", "warn", "FAIL"
Finding = tuple[str, str, str]  # verdict, what, what to do

# Deadlines are kept by our clock: half a minute is what NTP never leaves and nobody's bill notices.
CLOCK_OFF = timedelta(seconds=30)


class Command(BaseCommand):
    help = (
        "Check settings, keys, clock, database, broker, heartbeats and the providers' reach, and say what to do. "
        "Changes nothing and rents nothing. Exit code 0: nothing fails (warnings may be there); 1: something does."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        colour = {WELL: self.style.SUCCESS, DOUBTFUL: self.style.WARNING, ILL: self.style.ERROR}
        ill = 0
        for verdict, what, advice in findings():
            ill += verdict == ILL
            self.stdout.write(f"{colour[verdict](f'{verdict:<5}')} {what}")
            if advice and verdict != WELL:
                self.stdout.write(f"      {advice}")
        if ill:
            raise CommandError(f"{ill} {'thing needs' if ill == 1 else 'things need'} attention.")


def findings() -> Iterator[Finding]:
    yield from _settings()
    database = signals.database()
    yield _verdict(database, f"database ({settings.DATABASES['default']['ENGINE'].rpartition('.')[2]})",
                   "Without it nothing can be rented or ended; their own switches end what runs.")  # fmt: skip
    has_rows = database == signals.OK
    yield _verdict(signals.broker(), "in-process broker" if settings.EMBEDDED else "broker", "Check CELERY_BROKER_URL.")
    if has_rows:
        yield from _engines(clock.now())
        yield from _api_keys(clock.now())
    yield from _provider_keys()
    for provider in registry.all().values():
        yield from _reach(provider)
        if has_rows:
            yield from _sight(provider.name, clock.now())
    if has_rows:
        yield from _alarms(clock.now())


def _verdict(told: str, what: str, advice: str) -> Finding:
    return (WELL, what, "") if told == signals.OK else (ILL, f"{what}: {told}", advice)


def _settings() -> Iterator[Finding]:
    for name, problem in settings.SETTING_PROBLEMS.items():
        yield ILL, f"setting {name}: {problem}", f"Mend {name} in the environment or in .env."
    if settings.PRODUCTION and settings.MADE_UP_SECRETS:
        yield ILL, f"not set: {', '.join(settings.MADE_UP_SECRETS)}", "`manage.py make_secrets` prints a set for .env."
    if not settings.SETTING_PROBLEMS:
        yield WELL, f"settings; deployment {settings.DEPLOYMENT_ID}, data in {settings.DATA_DIR}", ""


def _engines(now: datetime) -> Iterator[Finding]:
    advice = "Start the service: `make run`, or in production the worker and beat containers."
    ticked = Heartbeat.objects.filter(name="beat").values_list("at", flat=True).first()
    age = f", {distance(ticked, now)}" if ticked else ""
    told = signals.lifecycle(now)
    yield _verdict(told, f"heartbeat of beat and workers{age if told == signals.OK else ''}", advice)
    if not settings.GUARDIAN:
        yield DOUBTFUL, "the guardian is switched off", "GUARDIAN=true keeps a second engine behind beat and workers."
        return
    beat = Heartbeat.objects.filter(name="guardian").first()
    if beat and now - beat.at <= alarms.GUARDIAN_SILENT:
        yield WELL, f"heartbeat of the guardian, {distance(beat.at, now)}", ""
    else:
        since = f"last round {distance(beat.at, now)}" if beat else "no round yet"
        yield ILL, f"guardian: {since}", "`make run` has it inside; in production start its container."


def _api_keys(now: datetime) -> Iterator[Finding]:
    live = sum(key.is_live(now) for key in ApiKey.objects.all())
    if live:
        yield WELL, f"{live} live API {'key' if live == 1 else 'keys'}", ""
    else:
        yield DOUBTFUL, "no API key yet", "`manage.py create_consumer NAME` makes a consumer and prints its key."


def _provider_keys() -> Iterator[Finding]:
    for name, problem in registry.load(settings.PROVIDER_ENV).problems.items():
        yield (
            ILL,
            f"provider {name}: {problem}",
            "Mend its key or address in the environment; it is left out until then.",
        )
    if settings.SANDBOX:
        yield (
            DOUBTFUL,
            f"no provider key is set: {_sandbox()}",
            "Set VASTAI_API_KEY or TENSORDOCK_API_TOKEN to rent for real.",
        )
    elif not registry.all():
        yield DOUBTFUL, "no provider key is set: nothing can be rented", "Set VASTAI_API_KEY or TENSORDOCK_API_TOKEN."


def _sandbox() -> str:
    if registry.all():
        return "the sandbox is used"
    return f"the sandbox is used, and lives in `make run`, which does not run on {settings.DATA_DIR}"


def _reach(provider: Provider) -> Iterator[Finding]:
    """One read of the account: does it answer, does it take our key, what is its clock."""
    name = provider.name
    clock.told.pop(name, None)
    try:
        account = provider.account()
    except Unauthorized as error:
        yield ILL, f"{name}: the key is rejected ({error})", \
            "Make a new key there, set it, restart. Sessions are kept as they are; machines there bill on."  # fmt: skip
    except ProviderError as error:
        yield ILL, f"{name}: no usable answer ({error})", \
            "Look at its status page and at our network. Nothing is concluded from its silence."  # fmt: skip
    else:
        balance = "" if account.balance is None else f", balance {account.balance / 1_000_000:.2f} USD"
        yield WELL, f"{name}: answers and takes our key{f', account {account.id}' if account.id else ''}{balance}", ""
    yield from _clock(name)


def _clock(name: str) -> Iterator[Finding]:
    ahead = clock.ahead_of(name)
    if ahead is None:
        yield DOUBTFUL, f"clock: {name} told no time to compare it with", \
            "Make sure that this machine's clock is kept by NTP: deadlines follow it."  # fmt: skip
    elif abs(ahead) > CLOCK_OFF:
        word, early = ("ahead of", "early") if ahead > timedelta(0) else ("behind", "late")
        yield ILL, f"clock: {abs(ahead).total_seconds():.0f} s {word} {name}'s", \
            f"Sessions end that much too {early}. Set it right and keep it by NTP."  # fmt: skip
    else:
        yield WELL, f"clock, within {CLOCK_OFF.total_seconds():.0f} s of {name}'s", ""


def _sight(name: str, now: datetime) -> Iterator[Finding]:
    row = Account.objects.filter(provider=name).first()
    if row is None or row.looked_at is None:
        yield DOUBTFUL, f"{name}: never listed completely", "`manage.py reconcile` lists it now."
    elif now - row.looked_at > alarms.blind_after():
        yield ILL, f"{name}: last complete listing {distance(row.looked_at, now)} {row.error}".rstrip(), \
            "Until it is listed again nothing new is created there. `manage.py reconcile` tries it now."  # fmt: skip
    else:
        yield WELL, f"{name}: listed completely {distance(row.looked_at, now)}", ""


# Said above in other words already.
_TOLD_ABOVE = frozenset({"no_heartbeat", "provider_blind"})


def _alarms(now: datetime) -> Iterator[Finding]:
    standing = [trouble for trouble in alarms.current(now) if trouble.name not in _TOLD_ABOVE]
    for trouble in standing:
        yield ILL, trouble.what, f"{trouble.meanwhile} {trouble.advice}"
    if not standing:
        yield WELL, "no machine outlives its deadline, no end is overdue, no brake is applied", ""
