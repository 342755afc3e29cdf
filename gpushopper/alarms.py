"""What needs a person, for as long as it does.

Whether an alarm stands is read from rows each time, so nothing has to be cleared by hand. `raise_new` is
called by both engines: what stands and did not before becomes one event, one log line and one open row;
when it is over, so does that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from gpushopper import signals
from gpushopper.models import Alarm
from providers import registry
from providers.tag import Ownership
from sessions.lifecycle import DESTROY_OVERDUE, MAX_UNRESOLVED_CREATES, MAY_EXIST, State, ask_again_after
from sessions.models import Account, Event, Heartbeat, Instance, Stranger
from sessions.rows import count, tell

log = logging.getLogger(__name__)

BLIND_AFTER = timedelta(minutes=15)
# A machine is asked for at its deadline; a minute more is the engines' own slack, ten is nobody at work.
DEADLINE_OVERDUE = timedelta(minutes=10)
# The guardian's round may take minutes while a provider does not answer.
GUARDIAN_SILENT = timedelta(minutes=5)

WATCH = "alarms"  # the heartbeat of this file; its note says since when the watch is unbroken
WATCH_BROKEN = timedelta(minutes=1)

# The controller writes these events itself, at the moment at which it learns of them.
TOLD_BY_THE_CONTROLLER = frozenset({"orphan_adopted", "host_key_changed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One alarm that stands, as a person reads it at night."""

    name: str
    subject: str
    what: str  # what is, and for how long
    meanwhile: str  # what happens by itself
    advice: str  # what to do
    provider: str = ""
    instance: Instance | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.subject

    @property
    def text(self) -> str:
        return f"{self.what} {self.meanwhile} {self.advice}"


Beats = Mapping[str, Heartbeat]  # by name

# Apps above and beside this one add what they notice; each yields what stands at that instant.
sources: list[Callable[[datetime], Iterable[Trouble]]] = []


def current(now: datetime) -> list[Trouble]:
    """Every alarm that stands."""
    beats = Heartbeat.objects.in_bulk()
    standing = [*_engines(beats, now), *_accounts(beats, now)]
    standing += [*_machines(now), *_unresolved(now), *_suspects(now)]
    for source in sources:
        standing.extend(source(now))
    return list({trouble.key: trouble for trouble in standing}.values())


# --- Ringing once ---------------------------------------------------------------------------------------


def raise_new(now: datetime) -> None:
    """Tell of every alarm that began or ended since anybody looked."""
    _watch(now)
    standing = {trouble.key: trouble for trouble in current(now)}
    open_rows = {(row.name, row.subject): row for row in Alarm.objects.filter(over_at=None)}
    for key, trouble in standing.items():
        if key not in open_rows:
            _raise(trouble, now)
    for key, row in open_rows.items():
        if key not in standing:
            _end(row, now)


def _watch(now: datetime) -> None:
    ours = Heartbeat.objects.filter(name=WATCH)
    since = _watching_since(ours.first(), now) or now
    if not ours.update(at=now, note=since.isoformat()):
        Heartbeat.objects.get_or_create(name=WATCH, defaults={"at": now, "note": since.isoformat()})


def _watching_since(watch: Heartbeat | None, now: datetime) -> datetime | None:
    """Since when somebody has been looking without a break; None: nobody is."""
    if watch is None or now - watch.at > WATCH_BROKEN:
        return None
    return datetime.fromisoformat(watch.note)


def _began_within(span: timedelta, beats: Beats, now: datetime) -> bool:
    """Somebody watches, and began so lately that the engines may not have shown themselves yet."""
    since = _watching_since(beats.get(WATCH), now)
    return since is not None and now - since < span


def _raise(trouble: Trouble, now: datetime) -> None:
    with transaction.atomic():
        _, raised = Alarm.objects.get_or_create(
            name=trouble.name, subject=trouble.subject, over_at=None,
            defaults={"raised_at": now, "text": trouble.text[:1000]},
        )  # fmt: skip
        if not raised:
            return  # Another process was quicker, and told of it.
        count("alarms_raised", trouble.name)
        if trouble.name not in TOLD_BY_THE_CONTROLLER:
            tell(trouble.name, trouble.what, now, instance=trouble.instance, provider=trouble.provider,
                 subject=trouble.subject, advice=trouble.advice)  # fmt: skip
    log.error("ALARM %s: %s", trouble.name.replace("_", " "), trouble.text)


def _end(row: Alarm, now: datetime) -> None:
    lasted = minutes(now - row.raised_at)
    with transaction.atomic():
        if not Alarm.objects.filter(pk=row.pk, over_at=None).update(over_at=now):
            return
        tell(f"{row.name}_over", f"Over after {lasted}: {first_sentence(row.text)}", now, subject=row.subject)
    log.warning("alarm over after %s: %s", lasted, row.text)


def first_sentence(text: str) -> str:
    """What it was; what to do about it is of no use any more."""
    return re.split(r"(?<=[.?]) (?=[A-Z])", text, maxsplit=1)[0]


def minutes(span: timedelta) -> str:
    """A span as people say it."""
    whole = int(span.total_seconds() // 60)
    if whole < 1:
        return f"{span.total_seconds():.0f} s"
    return f"{whole} min" if whole < 120 else f"{whole // 60} h {whole % 60} min"


# --- The engines ----------------------------------------------------------------------------------------


def _engines(beats: Beats, now: datetime) -> Iterator[Trouble]:
    told = signals.ticking(beats.get("beat"), now)
    silence = _guardian_silence(beats, now) if settings.GUARDIAN else "not wanted (GUARDIAN=false)"
    if told != signals.OK and not _began_within(WATCH_BROKEN, beats, now):
        yield Trouble(
            name="no_heartbeat", subject="beat", what=f"Beat or its worker is silent: {told}",
            meanwhile="Nobody looks after the machines: their own switches end them soon after their hard deadlines, "
            "at best." if silence else "The guardian does their work, a minute later than they would.",
            advice="Start beat and a worker (embedded: `make run`); `manage.py doctor` says what else is missing.",
        )  # fmt: skip
    if settings.GUARDIAN and silence:
        yield Trouble(
            name="no_heartbeat", subject="guardian", what=f"The guardian is silent: {silence}.",
            meanwhile="Beat and workers keep the promises, without a second engine behind them." if told == signals.OK
            else "Nothing is done for any machine.",
            advice="Start `manage.py guardian`, or set GUARDIAN=false if it is not wanted.",
        )  # fmt: skip


def _guardian_silence(beats: Beats, now: datetime) -> str:
    """ "" while it shows signs of life, or has not had the time to."""
    beat = beats.get("guardian")
    if (beat and now - beat.at <= GUARDIAN_SILENT) or _began_within(GUARDIAN_SILENT, beats, now):
        return ""
    return f"no round for {minutes(now - beat.at)}" if beat else "no round yet"


# --- Accounts -------------------------------------------------------------------------------------------


def _accounts(beats: Beats, now: datetime) -> Iterator[Trouble]:
    enabled = registry.all()
    # What happened before anybody looked is not held against a provider.
    since = _watching_since(beats.get(WATCH), now) or now
    for account in Account.objects.order_by("provider"):
        if account.brake:
            yield _braked(account)
        if account.provider not in enabled:
            yield from _without_key(account, now)
            continue
        # Only a listing that works ends it: a time-out after a rejection says nothing about the key.
        if account.unauthorized:
            yield _rejected(account)
        if _is_blind(account, since, now):
            yield _blind(account, now)


def blind_after() -> timedelta:
    """A listing is due each RECONCILIATION_INTERVAL; one that is not due yet is not missing."""
    return max(BLIND_AFTER, settings.RECONCILIATION_INTERVAL + timedelta(minutes=5))


def _is_blind(account: Account, since: datetime, now: datetime) -> bool:
    """No complete listing for long, though somebody tried, or had the time to.

    A service that was stopped overnight has an old listing too, and needs nobody: it lists within seconds.
    """
    seen = account.looked_at or since
    tried = account.failures > 0 or now - since > blind_after()
    return tried and now - seen > blind_after()


def _age(account: Account, now: datetime) -> str:
    if account.looked_at is None:
        return "never listed completely"
    return f"no complete listing for {minutes(now - account.looked_at)}, since {account.looked_at:%Y-%m-%d %H:%M} UTC"


def _blind(account: Account, now: datetime) -> Trouble:
    error = f" The last error: {account.error}." if account.error else ""
    return Trouble(
        name="provider_blind", subject=account.provider, provider=account.provider,
        what=f"{account.provider}: {_age(account, now)}.{error}",
        meanwhile="It is asked again each minute. Nothing is concluded meanwhile, nothing new is created there, "
        "and deadlines are still acted upon.",
        advice="Look at its status page and at our key and network; in need destroy machines in its own console.",
    )  # fmt: skip


def _without_key(account: Account, now: datetime) -> Iterator[Trouble]:
    left = Instance.objects.filter(provider=account.provider, state__in=MAY_EXIST).exclude(machine_id="").count()
    if left:
        yield Trouble(
            name="provider_blind", subject=account.provider, provider=account.provider,
            what=f"{account.provider}: machines of ours ({left}) may be billing there and no key for it is set "
            f"({_age(account, now)}).",
            meanwhile="Nothing can be seen or destroyed there; only their own switches end them.",
            advice="Set its key again and restart, or destroy them in its own console.",
        )  # fmt: skip


def _rejected(account: Account) -> Trouble:
    return Trouble(
        name="credentials_rejected", subject=account.provider, provider=account.provider,
        what=f"{account.provider} rejects our key. The last error: {account.error or 'not authorised'}.",
        meanwhile="Sessions are kept as they are. Machines there bill on and can't be destroyed by us until it works.",
        advice="Make a new key there, put it into the environment, restart; `manage.py doctor` tells whether it works.",
    )  # fmt: skip


def _braked(account: Account) -> Trouble:
    adopted = Instance.objects.filter(provider=account.provider, session=None, state=State.RUNNING).count()
    return Trouble(
        name="brake_applied", subject=account.provider, provider=account.provider,
        what=f"{account.provider}: {account.brake}.",
        meanwhile=f"Nothing new is created there. Adopted machines ({adopted}) run until their labels' deadlines.",
        advice="End on their pages what nobody needs, then release the brake on the account's page.",
    )  # fmt: skip


# --- Machines -------------------------------------------------------------------------------------------


def _machines(now: datetime) -> Iterator[Trouble]:
    stuck = Q(state=State.DESTROYING, state_since__lt=now - DESTROY_OVERDUE)
    forgotten = Q(deadline__lt=now - DEADLINE_OVERDUE) & ~Q(state=State.DESTROYING)
    known = Instance.objects.filter(state__in=MAY_EXIST).exclude(machine_id="")
    for row in known.filter(stuck | forgotten | Q(adopted_at__isnull=False)):
        if row.state == State.DESTROYING and now - row.state_since > DESTROY_OVERDUE:
            yield _overdue(row, now)
        if row.state != State.DESTROYING and now - row.deadline > DEADLINE_OVERDUE:
            yield _forgotten(row, now)
        if row.adopted_at is not None:
            yield _adopted(row)


def _overdue(row: Instance, now: datetime) -> Trouble:
    every = minutes(ask_again_after(row.asks))
    return Trouble(
        name="destroy_overdue", subject=str(row.pk), provider=row.provider, instance=row,
        what=f"Machine {row.machine_id} at {row.provider} has been on its way out for "
        f"{minutes(now - row.state_since)}, asked for {row.asks} times, and is not proven gone.",
        meanwhile=f"It may bill until it is. While listings show it, it is asked for again every {every}; nothing "
        "new is created there.",
        advice="Destroy it in the provider's own console; we notice by ourselves.",
    )  # fmt: skip


def _forgotten(row: Instance, now: datetime) -> Trouble:
    return Trouble(
        name="deadline_passed", subject=str(row.pk), provider=row.provider, instance=row,
        what=f"Machine {row.machine_id} at {row.provider} outlives its deadline by {minutes(now - row.deadline)}, "
        "and nothing has been asked of the provider.",
        meanwhile="It bills. Its own switch, where it is armed, fires soon after its hard deadline.",
        advice="Somebody has to do what is due: start the workers or `manage.py guardian`, or destroy it there.",
    )  # fmt: skip


def _adopted(row: Instance) -> Trouble:
    kept = row.state != State.DESTROYING
    return Trouble(
        name="orphan_adopted", subject=str(row.pk), provider=row.provider, instance=row,
        what=f"Machine {row.machine_id} at {row.provider} bears our label and no session stands for it; found "
        f"{row.adopted_at:%Y-%m-%d %H:%M} UTC.",
        meanwhile=f"It is kept until the deadline in its label, {row.deadline:%Y-%m-%d %H:%M} UTC." if kept
        else "It is being destroyed, until its absence is proven.",
        advice="If nobody needs it, end it on its page." if kept
        else "Ask how it came about: a lost database, or a create that succeeded long after it was given up?",
    )  # fmt: skip


def _unresolved(now: datetime) -> Iterator[Trouble]:
    unclear = Instance.objects.filter(
        state__in=(State.LAUNCHING, State.DESTROYING), machine_id="", launched_at__isnull=False, refused_at=None
    )
    launched: dict[str, list[datetime]] = {}
    for provider, launched_at in unclear.values_list("provider", "launched_at"):
        launched.setdefault(provider, []).append(launched_at or now)
    for provider, moments in sorted(launched.items()):
        if len(moments) >= MAX_UNRESOLVED_CREATES:
            yield Trouble(
                name="unresolved_creates", subject=provider, provider=provider,
                what=f"{provider}: {len(moments)} creates have no clear answer, the oldest for "
                f"{minutes(now - min(moments))}.",
                meanwhile="Nothing new is created there until the listings have told what came of them.",
                advice="Nothing to do, unless it lasts for more than 20 minutes: then look at its status page.",
            )  # fmt: skip


def _suspects(now: datetime) -> Iterator[Trouble]:
    for stranger in Stranger.objects.filter(ownership=Ownership.SUSPECT):
        yield Trouble(
            name="suspect_label", subject=f"{stranger.provider} {stranger.machine_id}", provider=stranger.provider,
            what=f"Machine {stranger.machine_id} at {stranger.provider} has a label that resembles ours and is not "
            f"signed by us: {stranger.label!r}.",
            meanwhile="It is never touched by rule.",
            advice="Look at it in the provider's console: a label cut off there, an old TAG_KEY, or somebody else's.",
        )  # fmt: skip
    # It is looked at each five minutes; three looks without another word, and it is over.
    changed = Event.objects.filter(kind="host_key_changed", at__gt=now - BLIND_AFTER, instance__state=State.RUNNING)
    for event in changed.select_related("instance").order_by("id"):
        row = event.instance
        if row is not None:
            yield Trouble(
                name="host_key_changed", subject=str(row.pk), provider=row.provider, instance=row,
                what=f"Machine {row.machine_id} at {row.provider} shows another SSH host key than the pinned one.",
                meanwhile="The pinned key stays, and we do not log in; the session goes on.",
                advice="Tell its consumer not to log in before it is understood: reinstalled, or somebody in between?",
            )  # fmt: skip
