"""What needs a person, for as long as it does: read from rows, so nothing has to be cleared by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpushopper import signals
from providers import registry
from providers.tag import Ownership
from sessions.lifecycle import DESTROY_OVERDUE, MAX_UNRESOLVED_CREATES, State
from sessions.models import Account, Event, Instance, Stranger

BLIND_AFTER = timedelta(minutes=15)
SHOWN_FOR = timedelta(hours=24)


@dataclass(frozen=True)
class Alarm:
    kind: str
    what: str
    advice: str


def current(now: datetime) -> list[Alarm]:
    return [*_engine(now), *_accounts(now), *_machines(now), *_strangers()]


def _engine(now: datetime) -> Iterator[Alarm]:
    told = signals.lifecycle(now)
    if told != signals.OK:
        yield Alarm(
            "no heartbeat", told, "Start beat and a worker. The guardian, if it runs, does their work meanwhile."
        )


def _accounts(now: datetime) -> Iterator[Alarm]:
    enabled = registry.all()
    for account in Account.objects.filter(provider__in=enabled):
        if account.unauthorized:
            yield Alarm(
                "credentials rejected",
                f"{account.provider} rejects our key: {account.error}",
                "Mend the key in the environment and restart. Its machines bill on and can't be destroyed until then.",
            )
        if account.looked_at is None or now - account.looked_at > BLIND_AFTER:
            since = f"{account.looked_at:%Y-%m-%d %H:%M} UTC" if account.looked_at else "ever"
            yield Alarm(
                "provider blind",
                f"{account.provider}: no complete listing since {since}. {account.error}",
                "Nothing is concluded meanwhile, and nothing new is created there. Look at its status page.",
            )
        if account.brake:
            yield Alarm("brake applied", f"{account.provider}: {account.brake}",
                        "Look at the adopted machines; end what nobody needs, then release the brake on the account's page.")  # fmt: skip


def _machines(now: datetime) -> Iterator[Alarm]:
    overdue = Instance.objects.filter(state=State.DESTROYING, state_since__lt=now - DESTROY_OVERDUE)
    for row in overdue.exclude(machine_id=""):
        minutes = (now - row.state_since).total_seconds() // 60
        yield Alarm("destroy overdue", f"Machine {row.machine_id} at {row.provider}: for {minutes:.0f} min, asked {row.asks} times",
                    "It bills until it is gone. Destroy it in the provider's own console; we go on asking.")  # fmt: skip
    for provider in registry.all():
        unresolved = Instance.objects.filter(
            provider=provider, machine_id="", launched_at__isnull=False, refused_at=None
        ).exclude(state=State.DESTROYED).count()  # fmt: skip
        if unresolved >= MAX_UNRESOLVED_CREATES:
            yield Alarm("unresolved creates", f"{provider}: {unresolved} creates without a clear answer",
                        "Creates wait until the listings have told. Nothing to do unless it lasts for 20 minutes.")  # fmt: skip
    for event in Event.objects.filter(kind="orphan_adopted", at__gt=now - SHOWN_FOR).select_related("instance"):
        if event.instance and event.instance.state != State.DESTROYED:
            yield Alarm("orphan adopted", event.message, "See its page for what is being done.")


def _strangers() -> Iterator[Alarm]:
    for stranger in Stranger.objects.filter(ownership=Ownership.SUSPECT):
        yield Alarm("suspect label", f"Machine {stranger.machine_id} at {stranger.provider}: {stranger.label!r}",
                    "Its label resembles ours and is not signed by us, so it is never touched by rule. Look at it.")  # fmt: skip
