"""What the apps below can't reach themselves is put into their hands here, once, at start."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from django.conf import settings

from providers import clock, registry
from providers.http import Pacer
from sessions import outlets, replies, rows
from sessions.models import Session

if TYPE_CHECKING:
    from gpushopper.alarms import Trouble


def connect() -> None:
    from costs import budgets, ledger, webhooks
    from gpushopper import alarms, heartbeat, stand_ins
    from providers import http

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    clock.use(clock.SteadyClock())
    keyed = registry.load(settings.PROVIDER_ENV, pacer=_pacer()).providers
    registry.use({**stand_ins.found(settings.DATA_DIR), **keyed} if settings.SANDBOX else keyed)
    http.observers.append(count_error)
    if enrol not in outlets.before_commitment:
        outlets.before_commitment.append(enrol)
    if alarms.raise_new not in outlets.each_round:
        outlets.each_round.append(alarms.raise_new)
    if replies.forget_old not in outlets.each_round:
        outlets.each_round.append(replies.forget_old)
    if heartbeat.ping not in outlets.each_listing:
        outlets.each_listing.append(heartbeat.ping)
    if unexplained_charges not in alarms.sources:
        alarms.sources.append(unexplained_charges)
    if clocks not in alarms.sources:
        alarms.sources.append(clocks)
    ledger.connect()
    budgets.connect(is_consumer)
    webhooks.connect()


def clocks(now: datetime) -> Iterator[Trouble]:
    """A clock of ours that providers contradict."""
    from gpushopper.alarms import Trouble
    from sessions import trust

    hold = f"No deadline falls due for {trust.HOLD.total_seconds() / 60:.0f} minutes; then they do, by our clock."
    for provider, by in trust.clocks_off().items():
        ahead = by.total_seconds() > 0
        yield Trouble(
            name="clock_off", subject=provider, provider=provider,
            what=f"Our clock is {abs(by).total_seconds():.0f} s {'ahead of' if ahead else 'behind'} {provider}'s.",
            meanwhile=f"Nothing new is created. {hold if ahead else 'Deadlines fall due that much too late.'}",
            advice="Set the clock right, and keep it so with NTP; `manage.py doctor` compares it.",
        )  # fmt: skip


def _pacer() -> Pacer | None:
    """Several processes on one key share their pace; a single one keeps its own."""
    from gpushopper.pacing import SharedPacer

    if settings.EMBEDDED or settings.PROVIDER_ENV.get("PROVIDER_PACING") == "off":
        return None
    return SharedPacer()


def enrol(session: Session, now: datetime) -> None:
    """An operator may name a new consumer: the first wish enrols it."""
    from gpushopper.models import Consumer

    Consumer.objects.get_or_create(name=session.consumer)


def is_consumer(name: str) -> bool:
    from gpushopper.models import Consumer

    return Consumer.objects.filter(name=name).exists()


def unexplained_charges(now: datetime) -> Iterator[Trouble]:
    """Money that no session explains needs a person."""
    from costs import bills
    from gpushopper.alarms import Trouble

    for found in bills.unexplained(now):
        yield Trouble(
            name="unexplained_charge", subject=found.subject, provider=found.provider, instance=found.instance,
            what=found.what, meanwhile=found.meanwhile, advice=found.advice,
        )  # fmt: skip


def count_error(provider: str, operation: str, outcome: str, seconds: float) -> None:
    """Errors of provider calls are counted in rows, so that the figure is right across processes."""
    if outcome != "ok":
        rows.count("provider_api_errors", f"{provider}/{operation}")
