"""The next decision about a session or a machine, as a sentence for a person.

It asks the same pure functions that the engines ask, with the same facts; nothing is decided here.
"""

from __future__ import annotations

from datetime import datetime

from providers import registry
from providers.base import Traits
from sessions import lifecycle, lives, machines
from sessions.lifecycle import State, Status
from sessions.models import Instance, Session

_DOES = {
    lifecycle.Launch: "asks {provider} to make it: once in its life",
    lifecycle.Boot: "takes it for booting, since its id is known",
    lifecycle.AttachKeys: "has {provider} put the SSH keys onto it",
    lifecycle.Probe: "tries to log in over SSH and compares the hardware with the offer",
    lifecycle.Inspect: "logs in to see whether the GPU is busy and the dead man's switch is armed",
    lifecycle.Relabel: "puts our label back, since {provider} shows another one",
    lifecycle.LookUp: "asks {provider} for it by id: the second witness that it is gone",
    lifecycle.AskDestroy: "asks {provider} to destroy it (ask {ask})",
    lifecycle.End: "wishes its end: {reason}",
    lifecycle.Conclude: "writes it down as gone, since that is proven",
    lifecycle.OpenAttempt: "takes the next fitting offer",
    lifecycle.HandOver: "hands the machine over to the consumer",
    lifecycle.EndSession: "wishes its end: {reason}",
    lifecycle.EndInstances: "wishes the end of its machines",
    lifecycle.Close: "closes it as {status}: all that was made for it is proven gone",
}
_ASKS_THE_PROVIDER = (
    lifecycle.Launch, lifecycle.AttachKeys, lifecycle.Relabel, lifecycle.LookUp, lifecycle.AskDestroy,
)  # fmt: skip


def of_instance(row: Instance, now: datetime) -> str:
    provider = registry.get(row.provider)
    traits = provider.traits if provider else Traits()
    facts = machines.facts_of(row, traits, now)
    action = lifecycle.decide(facts, machines.limits_of(traits), now)
    if isinstance(action, lifecycle.Wait):
        return _waits(_WAITS_IN[facts.state](facts), action.until and _due(row, action.until, now), now)
    if provider is None and isinstance(action, _ASKS_THE_PROVIDER):
        return f"Nothing can be asked of {row.provider}: no key for it is set. It is kept as it is."
    return _will(action, row, now, provider=row.provider, ask=row.asks + 1)


def of_session(session: Session, now: datetime) -> str:
    instances = list(session.instances.order_by("created_at", "id"))
    attempts = lives.attempts_of(session, instances)
    action = lifecycle.decide_session(lives.wish_of(session, instances), attempts, now)
    if isinstance(action, lifecycle.Wait):
        return _waits(_session_waits_for(session, now), action.until and _due(session, action.until, now), now)
    sentence = _will(action, session, now)
    return f"{sentence} Held up: {session.waiting_for}." if session.waiting_for else sentence


def _will(action: object, row: Instance | Session, now: datetime, **words: object) -> str:
    reason = getattr(action, "reason", None)
    does = _DOES[type(action)].format(
        reason=str(reason or "").replace("_", " "), status=getattr(action, "status", ""), **words
    )
    if row.due_at is None or row.due_at <= now:
        return f"At once: {does}."
    return f"{clock_time(row.due_at, now)}: {does}."


def _due(row: Instance | Session, until: datetime, now: datetime) -> datetime:
    """When it is looked at: earlier than what it waits for, if that is far off."""
    return row.due_at if row.due_at is not None and now < row.due_at < until else until


def _waits(for_what: str, until: datetime | None, now: datetime) -> str:
    return (
        f"{for_what}. Next look: {clock_time(until, now)}, or as soon as something happens."
        if until
        else f"{for_what}."
    )


def _launching(facts: lifecycle.Facts) -> str:
    return "Waits for the listings to tell what came of the create"


def _booting(facts: lifecycle.Facts) -> str:
    if facts.has_target:
        return "Waits a moment before the next SSH login is tried"
    return "Waits for the provider to tell where it can be reached over SSH"


def _running(facts: lifecycle.Facts) -> str:
    return "Runs"


def _destroying(facts: lifecycle.Facts) -> str:
    if facts.asks:
        return "Waits for complete listings to agree that it is gone"
    return "Waits for the listings to find it, or to prove that it never was"


def _destroyed(facts: lifecycle.Facts) -> str:
    return "Nothing: it is proven gone"


_WAITS_IN = {
    State.LAUNCHING: _launching,
    State.BOOTING: _booting,
    State.RUNNING: _running,
    State.DESTROYING: _destroying,
    State.DESTROYED: _destroyed,
}


def _session_waits_for(session: Session, now: datetime) -> str:
    if session.is_over:
        return "Nothing: it is over"
    if session.status == Status.STOPPING:
        return "Waits for the proof that each of its machines is gone"
    if session.status == Status.RUNNING and session.expires_at:
        return f"Runs until {clock_time(session.expires_at, now)}"
    return "Waits for its machine"


def clock_time(at: datetime, now: datetime) -> str:
    """`12:03:10 UTC (in 7 s)`; with the day, unless it is today."""
    day = "" if at.date() == now.date() else f"{at:%Y-%m-%d} "
    return f"{day}{at:%H:%M:%S} UTC ({distance(at, now)})"


def distance(at: datetime, now: datetime) -> str:
    span = abs((at - now).total_seconds())
    if span < 1:
        return "now"
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if span >= 2 * seconds or seconds == 1:
            told = f"{span / seconds:.0f} {unit}"
            break
    return f"in {told}" if at > now else f"{told} ago"
