"""What a client sees of a session, and the OpenAPI description of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from rest_framework import serializers

from providers import clock, registry
from providers.base import Traits
from providers.money import usd
from sessions import outlets
from sessions.lifecycle import GOOD_ENDS, OVER, RETRYABLE, Reason, State, Status
from sessions.models import Event, Heartbeat, Instance, Session
from sessions.rows import with_said

# --- For the schema ---------------------------------------------------------------------------------------


class Failure(serializers.Serializer[Any]):
    type = serializers.CharField(help_text="Why it ended, as a code.")
    message = serializers.CharField()
    retry_suggested = serializers.BooleanField(help_text="Another offer may do better.")


class SessionAttempt(serializers.Serializer[Any]):
    offer_id = serializers.CharField()
    provider = serializers.CharField()
    outcome = serializers.CharField(help_text="Its state while it lives, then the reason of its end.")
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True, help_text="Proven gone.")


class SessionShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    consumer_id = serializers.CharField()
    provider = serializers.CharField()
    offer_id = serializers.CharField()
    gpu_type = serializers.CharField()
    gpu_count = serializers.IntegerField()
    vram_gb = serializers.IntegerField(help_text="Of one GPU.")
    status = serializers.ChoiceField([status.value for status in Status])
    status_reason = serializers.CharField(help_text="Why it ended or waits; empty if there is nothing to say.")
    failure = Failure(allow_null=True)
    attempts = SessionAttempt(many=True)
    ssh_host = serializers.CharField(allow_null=True)
    ssh_port = serializers.IntegerField(allow_null=True)
    ssh_user = serializers.CharField(allow_null=True)
    ssh_command = serializers.CharField(allow_null=True)
    known_hosts = serializers.CharField(allow_null=True, help_text="A line with the host key of first contact.")
    workload_type = serializers.CharField()
    reservation_hours = serializers.FloatField()
    price_per_hour = serializers.FloatField(help_text="USD, for the whole machine with its disk.")
    cost_so_far = serializers.FloatField(help_text="USD, by the price and the time that is billed.")
    disk_gb = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True, help_text="The provider was asked from then on.")
    running_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    hard_deadline = serializers.DateTimeField(allow_null=True)
    stopped_at = serializers.DateTimeField(allow_null=True)
    verified_gone_at = serializers.DateTimeField(allow_null=True)


class SessionPage(serializers.Serializer[Any]):
    sessions = SessionShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class SessionAnswer(serializers.Serializer[Any]):
    session = SessionShape()


class NewSession(SessionAnswer):
    ssh_private_key = serializers.CharField(
        allow_null=True, help_text="OpenSSH format; null if a public key was given."
    )


class Extended(SessionAnswer):
    new_expires_at = serializers.DateTimeField(allow_null=True, help_text="Null until a provider was asked.")


class EventShape(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    type = serializers.CharField()
    message = serializers.CharField()
    actor = serializers.CharField(help_text="Who wished it; empty: the service.")
    data = serializers.DictField()  # type: ignore[assignment] # shadows a property that nobody reads of a shape
    said = serializers.CharField(required=False, help_text="To operators only: what the provider said, in its words.")


class EventPage(serializers.Serializer[Any]):
    events = EventShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class KeyShape(serializers.Serializer[Any]):
    session_id = serializers.UUIDField()
    ssh_private_key = serializers.CharField()
    available_until = serializers.DateTimeField()


class SshCheck(serializers.Serializer[Any]):
    at = serializers.DateTimeField(allow_null=True)
    ok = serializers.BooleanField(allow_null=True)
    note = serializers.CharField()


class DeadMan(serializers.Serializer[Any]):
    state = serializers.ChoiceField(["armed", "not possible", "unknown"])
    deadline = serializers.DateTimeField(allow_null=True, help_text="As read back from the machine.")
    read_at = serializers.DateTimeField(allow_null=True)
    does = serializers.CharField(help_text="`destroys`, or `powers_off`: the disk goes on billing.")


class Safeguards(serializers.Serializer[Any]):
    expires_at = serializers.DateTimeField(allow_null=True)
    hard_deadline = serializers.DateTimeField(allow_null=True)
    last_seen_in_listing = serializers.DateTimeField(allow_null=True)
    guardian_beat = serializers.DateTimeField(allow_null=True)
    dead_man = DeadMan()


class Diagnostics(serializers.Serializer[Any]):
    session_id = serializers.UUIDField()
    uptime_seconds = serializers.IntegerField()
    time_left_seconds = serializers.IntegerField()
    last_ssh_check = SshCheck()
    nvidia_smi = serializers.DictField(
        help_text="What the machine's own `nvidia-smi` said at `read_at`; CUDA and `df` as they were at first."
    )
    idle_since = serializers.DateTimeField(allow_null=True)
    safeguards = Safeguards()


# --- The shapes themselves ----------------------------------------------------------------------------------


def instant(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def money(micros: int) -> float:
    """USD as a JSON number: up to 15 digits, the six places are exact."""
    return float(usd(micros))


def hours(span: timedelta) -> float:
    return round(span.total_seconds() / 3600, 6)


def sessions_json(sessions: Sequence[Session], now: datetime, *, to_operator: bool = False) -> list[dict[str, Any]]:
    """Several sessions with two queries: their machines are prefetched, their costs counted at once."""
    costs = outlets.costs_of([session.pk for session in sessions], now)
    return [
        _session_json(session, list(session.instances.all()), costs.get(session.pk, 0), to_operator=to_operator)
        for session in sessions
    ]


def session_json(session: Session, now: datetime | None = None, *, to_operator: bool = False) -> dict[str, Any]:
    return sessions_json([session], now or clock.now(), to_operator=to_operator)[0]


def _session_json(session: Session, instances: list[Instance], cost: int, *, to_operator: bool) -> dict[str, Any]:
    note = with_said(session.end_note, session.end_said) if to_operator else session.end_note
    return {
        "id": str(session.pk),
        "consumer_id": session.consumer,
        "provider": session.provider,
        "offer_id": session.offer_id,
        "gpu_type": session.gpu_type,
        "gpu_count": session.gpu_count,
        "vram_gb": session.vram_gb,
        "status": session.status,
        "status_reason": status_reason(session, note),
        "failure": failure(session, note),
        "attempts": [attempt(row) for row in instances if row.adopted_at is None],
        **access(session, instances),
        "workload_type": session.workload_type,
        "reservation_hours": hours(session.reservation),
        "price_per_hour": money(session.price),
        "cost_so_far": money(cost),
        "disk_gb": session.disk_gb,
        "created_at": instant(session.created_at),
        "started_at": instant(session.started_at),
        "running_at": instant(session.running_at),
        "expires_at": instant(session.expires_at),
        "hard_deadline": instant(session.hard_deadline),
        "stopped_at": instant(session.stopped_at),
        "verified_gone_at": instant(verified_gone_at(session, instances)),
    }


def status_reason(session: Session, note: str) -> str:
    if not session.end_reason:
        return session.waiting_for
    return f"{session.end_reason}: {note}" if note else session.end_reason


def failure(session: Session, note: str) -> dict[str, Any] | None:
    if not session.end_reason or Reason(session.end_reason) in GOOD_ENDS:
        return None
    reason = Reason(session.end_reason)
    message = EXPLAINED.get(reason, f"It ended: {reason.replace('_', ' ')}.")
    return {
        "type": str(reason),
        "message": f"{message} {note}".strip(),
        "retry_suggested": reason in RETRYABLE or reason in (Reason.NO_OFFER, Reason.NOT_LAUNCHED),
    }


EXPLAINED = {
    Reason.REFUSED: "The provider refused to rent this offer.",
    Reason.LAUNCH_LOST: "The provider's answer was lost, and no machine came of it.",
    Reason.NO_OFFER: "No fitting offer is left on the menu.",
    Reason.NOT_LAUNCHED: "Nothing could be asked of the provider in time.",
    Reason.NO_MONEY: "The provider account lacks the money for it; an operator has to top it up.",
    Reason.INVALID_REQUEST: "The provider took the request for invalid; the image or the template may be why.",
    Reason.UNAUTHORIZED: "The provider rejected our key; an operator has to mend it.",
    Reason.BOOT_TIMEOUT: "The machine did not come up in time.",
    Reason.SSH_TIMEOUT: "The machine came up, but SSH never let us in.",
    Reason.HOST_BROKEN: "The host could not start the machine; if you named an image, see that it can be pulled.",
    Reason.WRONG_HARDWARE: "The machine is not what was offered.",
    Reason.TOO_DEAR: "The machine would have cost more than the limit.",
    Reason.LABEL_LOST: "The provider did not keep the machine's label.",
    Reason.DIED: "The machine stopped, or was taken away by its host.",
    Reason.VANISHED: "The provider no longer has the machine.",
}


def attempt(row: Instance) -> dict[str, Any]:
    return {
        "offer_id": row.offer_id,
        "provider": row.provider,
        "outcome": row.end_reason or row.state,
        "started_at": instant(row.created_at),
        "ended_at": instant(row.ended_at),
    }


NO_ACCESS = dict.fromkeys(("ssh_host", "ssh_port", "ssh_user", "ssh_command", "known_hosts"))


def access(session: Session, instances: Sequence[Instance]) -> dict[str, Any]:
    row = usable(session, instances)
    if row is None:
        return NO_ACCESS
    return {
        "ssh_host": row.ssh_host,
        "ssh_port": row.ssh_port,
        "ssh_user": row.ssh_user,
        "ssh_command": f"ssh -p {row.ssh_port} {row.ssh_user}@{row.ssh_host}",
        "known_hosts": known_hosts_line(row),
    }


def usable(session: Session, instances: Sequence[Instance]) -> Instance | None:
    """The machine that was handed over, while it is the consumer's."""
    if session.status != Status.RUNNING:
        return None
    return next((row for row in reversed(instances) if row.state == State.RUNNING), None)


def known_hosts_line(row: Instance) -> str:
    host = row.ssh_host if row.ssh_port == 22 else f"[{row.ssh_host}]:{row.ssh_port}"
    return f"{host} {row.host_key}"


def verified_gone_at(session: Session, instances: Sequence[Instance]) -> datetime | None:
    if session.status not in OVER:
        return None
    return max((row.ended_at for row in instances if row.ended_at), default=session.stopped_at)


def event_json(event: Event, *, to_operator: bool = False) -> dict[str, Any]:
    shown = {"at": instant(event.at), "type": event.kind, "message": event.message, "actor": event.actor,
             "data": event.data}  # fmt: skip
    return {**shown, "said": event.said} if to_operator else shown


def diagnostics(session: Session, row: Instance, now: datetime) -> dict[str, Any]:
    left = (session.expires_at - now).total_seconds() if session.expires_at else 0
    return {
        "session_id": str(session.pk),
        "uptime_seconds": int((now - (session.running_at or now)).total_seconds()),
        "time_left_seconds": max(0, int(left)),
        "last_ssh_check": {
            "at": instant(row.inspected_at), "ok": not row.probe_note if row.inspected_at else None,
            "note": row.probe_note,
        },
        "nvidia_smi": row.hardware,
        "idle_since": instant(row.idle_since),
        "safeguards": _safeguards(session, row),
    }  # fmt: skip


def _safeguards(session: Session, row: Instance) -> dict[str, Any]:
    guardian = Heartbeat.objects.filter(name="guardian").first() if settings.GUARDIAN else None
    return {
        "expires_at": instant(session.expires_at),
        "hard_deadline": instant(session.hard_deadline),
        "last_seen_in_listing": instant(row.seen_at),
        "guardian_beat": instant(guardian.at if guardian else None),
        "dead_man": dead_man(row),
    }


def dead_man(row: Instance) -> dict[str, Any]:
    """The switch on the machine itself, as read back from it; what was not read back is unknown."""
    provider = registry.get(row.provider)
    does = (provider.traits if provider else Traits()).dead_man
    state = "armed" if row.dead_man_deadline else "unknown" if does else "not possible"
    return {"state": state, "deadline": instant(row.dead_man_deadline),
            "read_at": instant(row.dead_man_read_at), "does": does}  # fmt: skip
