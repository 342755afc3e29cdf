"""The life of a session and of its machines: the states, and what to do next.

Pure. `decide` needs nothing but `Facts`, the `Limits` and the instant, and wants nothing but the action
it returns; `decide_session` likewise. No clock, no database, no network, no settings.

Knowledge is a timestamp. Four instants say all that we know about a machine's existence:

    looked_at   a complete listing of the account began
    seen_at     a listing contained it
    denied_at   a look-up by id was answered "no such machine"
    asked_at    we asked for its destruction

An outage moves none of them, so "unknown" is what remains when nothing was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from providers.base import MachineState

# --- States ---------------------------------------------------------------------------------------------


class State(StrEnum):
    """Of one instance: one create attempt, and the machine that it may have made."""

    LAUNCHING = "launching"
    BOOTING = "booting"
    RUNNING = "running"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


# Each edge with the sentence that justifies it. Nothing else writes `state`.
MOVES: dict[tuple[State, State], str] = {
    (State.LAUNCHING, State.BOOTING): "the machine's id is known",
    (State.LAUNCHING, State.DESTROYING): "its end is wished, and it may exist",
    (State.LAUNCHING, State.DESTROYED): "it never was: refused or lost, and listings stayed silent",
    (State.BOOTING, State.RUNNING): "SSH login worked and the hardware is what was offered",
    (State.BOOTING, State.DESTROYING): "its end is wished, or it turned out unusable",
    (State.RUNNING, State.DESTROYING): "its end is wished, its deadline is due, or it died",
    (State.DESTROYING, State.DESTROYED): "its absence is proven",
    (State.DESTROYED, State.DESTROYING): "a listing shows it again",
}

MAY_EXIST = (State.LAUNCHING, State.BOOTING, State.RUNNING, State.DESTROYING)
ALIVE = (State.LAUNCHING, State.BOOTING, State.RUNNING)  # nobody has wished its end yet


class Status(StrEnum):
    """Of a session, as the API shows it. `stopped` and `failed` both mean: proven gone."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE = (Status.PENDING, Status.PROVISIONING, Status.RUNNING)
OVER = (Status.STOPPED, Status.FAILED)

STATUS_MOVES: dict[Status, tuple[Status, ...]] = {
    Status.PENDING: (Status.PROVISIONING, Status.STOPPING),
    Status.PROVISIONING: (Status.RUNNING, Status.STOPPING),
    Status.RUNNING: (Status.STOPPING,),
    Status.STOPPING: (Status.STOPPED, Status.FAILED),
    # A machine thought gone was seen again.
    Status.STOPPED: (Status.STOPPING,),
    Status.FAILED: (Status.STOPPING,),
}


class Reason(StrEnum):
    """Why something ended: the end of the sentence "it ended because it …". The first one wins."""

    RELEASED = "released"  # the consumer said done
    DELETED = "deleted"  # the consumer, or an operator, asked for the end at once
    EXPIRED = "expired"
    HARD_MAX = "hard_max"
    IDLE = "idle"
    BUDGET = "budget"
    TEARDOWN = "teardown"  # an operator's command
    REFUSED = "refused"
    LAUNCH_LOST = "launch_lost"
    NO_OFFER = "no_offer"
    NOT_LAUNCHED = "not_launched"
    NO_MONEY = "no_money"
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    BOOT_TIMEOUT = "boot_timeout"
    SSH_TIMEOUT = "ssh_timeout"
    HOST_BROKEN = "host_broken"
    WRONG_HARDWARE = "wrong_hardware"
    TOO_DEAR = "too_dear"
    INTERRUPTIBLE = "interruptible"  # it can be taken away, and was not rented so
    LABEL_LOST = "label_lost"
    DIED = "died"
    VANISHED = "vanished"
    ORPHAN = "orphan"
    SURPLUS = "surplus"  # a second machine under one tag


# Ends that were wished or due: the session is `stopped`. All others make it `failed`.
GOOD_ENDS = frozenset(
    {Reason.RELEASED, Reason.DELETED, Reason.EXPIRED, Reason.HARD_MAX, Reason.IDLE, Reason.BUDGET,
     Reason.TEARDOWN}
)  # fmt: skip

# Ends after which the next offer may do better. Not among them: our own request was wrong, or the
# account has no money, which no other offer mends.
RETRYABLE = frozenset(
    {Reason.REFUSED, Reason.LAUNCH_LOST, Reason.BOOT_TIMEOUT, Reason.SSH_TIMEOUT, Reason.HOST_BROKEN,
     Reason.WRONG_HARDWARE, Reason.TOO_DEAR, Reason.INTERRUPTIBLE, Reason.LABEL_LOST, Reason.DIED, Reason.VANISHED}
)  # fmt: skip


# --- What is known --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    confirm: timedelta  # DESTROY_CONFIRM
    settle: timedelta  # CREATE_SETTLE, or the provider's own if longer
    boot_timeout: timedelta  # PROVISION_TIMEOUT
    ssh_timeout: timedelta  # SSH_VERIFY_TIMEOUT
    check_interval: timedelta | None = None  # SSH_CHECK_INTERVAL; None: adaptive
    hold_deadlines_until: datetime | None = None  # while our clock is in doubt (`sessions.trust`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One instance, as far as we know."""

    state: State
    deadline: datetime
    hard_deadline: datetime
    machine_id: str = ""
    launched_at: datetime | None = None  # the create call was about to be sent
    refused_at: datetime | None = None  # it was refused in a form known to mean no
    looked_at: datetime | None = None
    seen_at: datetime | None = None
    asked_at: datetime | None = None
    denied_at: datetime | None = None
    misses: int = 0  # complete listings without it since it was last touched
    asks: int = 0
    machine_state: MachineState | None = None  # as last seen
    useless_looks: int = 0  # listings in a row that showed it down or broken
    useless_since: datetime | None = None
    up_since: datetime | None = None  # since listings say that it runs
    mislabelled: bool = False
    too_dear: bool = False  # it costs more than it was taken for
    interruptible: bool = False
    can_attach: bool = False  # the provider takes keys for a machine that is there
    keyed_at: datetime | None = None  # the keys were sent there
    denied_login_at: datetime | None = None  # a server answered and did not take our key
    has_target: bool = False  # an SSH address is known
    probed_at: datetime | None = None
    inspected_at: datetime | None = None
    inspect_every: timedelta = timedelta(minutes=5)
    idle_since: datetime | None = None  # the GPU was seen idle from then to `inspected_at`, unbroken
    idle_threshold: timedelta | None = None
    can_relabel: bool = False
    dead_man_due: bool = False  # the switch on the machine shows another deadline than ours


def touched_at(facts: Facts) -> datetime | None:
    """When we last did something to the machine, or saw it."""
    moments = [moment for moment in (facts.launched_at, facts.asked_at, facts.seen_at) if moment]
    return max(moments, default=None)


def silence(facts: Facts) -> timedelta:
    """How long complete listings have gone without this machine since it was last touched.

    Zero while the provider does not answer: an outage is not silence.
    """
    touched = touched_at(facts)
    if facts.looked_at is None or touched is None:
        return timedelta(0)
    return max(timedelta(0), facts.looked_at - touched)


def unlisted(facts: Facts, limits: Limits) -> bool:
    """The first witness of absence: at least two complete listings, over long enough, lack it."""
    return facts.misses >= 2 and silence(facts) >= patience(facts, limits)


# A machine of a minute ago may still be missing from listings and look-ups alike.
NEVER_SHOWN = timedelta(minutes=2)


def patience(facts: Facts, limits: Limits) -> timedelta:
    """How long it has to be missing. One that no listing has shown yet may only be late."""
    known = facts.seen_at or facts.refused_at or facts.state is State.DESTROYING
    return limits.confirm if known else max(limits.confirm, NEVER_SHOWN)


def proven_absent(facts: Facts, limits: Limits) -> bool:
    """Two witnesses by two channels: the listings, and later a denial by id.

    Without an id there is nothing to look up, so the listings have to be silent for as long as one
    may lag behind a create.
    """
    if facts.launched_at is None and not facts.machine_id:
        return True  # Nothing was ever asked for.
    if not facts.machine_id:
        return facts.misses >= 2 and silence(facts) >= limits.settle
    touched = touched_at(facts)
    if facts.denied_at is None or touched is None:
        return False
    return unlisted(facts, limits) and facts.denied_at >= touched + patience(facts, limits)


# --- What to do next --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    until: datetime | None  # None: until a fact or a wish arrives


@dataclass(frozen=True, slots=True)
class Launch:
    """Send the create call: once in this row's life."""


@dataclass(frozen=True, slots=True)
class Boot:
    """The id is known: the machine exists."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Log in over SSH, pin the host key, compare the hardware."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Log in to a running machine: is the GPU busy, is the dead man's switch armed?"""


@dataclass(frozen=True, slots=True)
class AttachKeys:
    """Have the provider put the keys onto the machine; a key that is there already does no harm."""


@dataclass(frozen=True, slots=True)
class Relabel:
    """The provider shows another label than the one that we sent."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the provider for it by id: the second witness."""


@dataclass(frozen=True, slots=True)
class AskDestroy:
    """Ask the provider to destroy it."""


@dataclass(frozen=True, slots=True)
class End:
    """Its end is wished from now on."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Conclude:
    """It is proven gone, or never was; `reason` only where none is known yet."""

    reason: Reason | None = None


Action = Wait | Launch | Boot | AttachKeys | Probe | Inspect | Relabel | LookUp | AskDestroy | End | Conclude

# A host that a listing calls down may be a report that trails behind (Vast.ai: `exited` right after a
# start; TensorDock: a flicker during boot for up to three minutes), so one bad look ends nothing.
USELESS_GRACE_BOOTING = timedelta(minutes=3)
USELESS_GRACE_RUNNING = timedelta(minutes=2)
# What a host says of its own failure to start the container does not mend itself; two looks suffice.
BROKEN_GRACE = timedelta(seconds=5)

# The first ask is answered within seconds; a provider that ignores it is not moved by a flood of asks.
_ASK_AGAIN_FIRST = timedelta(seconds=10)
_ASK_AGAIN_MOST = timedelta(minutes=5)

# Keys reach a host some 15 s after they were attached. On a running machine they were seen wiped after 9 to 18 h;
# but its consumer may have removed ours on purpose, so there it is not insisted upon.
KEYS_AGAIN_BOOTING = timedelta(minutes=1)
KEYS_AGAIN_RUNNING = timedelta(minutes=30)

# While a machine boots: often at first, since most that come up do so within two minutes.
PROBE_SOONEST = timedelta(seconds=1)
_PROBE_MOST = timedelta(seconds=15)
_PROBE_EAGER = timedelta(minutes=2)


def decide(facts: Facts, limits: Limits, now: datetime) -> Action:
    """The one next step for this instance."""
    action = _DECIDE[facts.state](facts, limits, now)
    overdue = isinstance(action, Wait) and action.until is not None and action.until <= now
    return Wait(now + HELD_LOOK) if overdue and _held(limits.hold_deadlines_until, now) else action


# A clock that is in doubt may be set right at any time.
HELD_LOOK = timedelta(seconds=10)


def _held(until: datetime | None, now: datetime) -> bool:
    return until is not None and now < until


def _launching(facts: Facts, limits: Limits, now: datetime) -> Action:
    if reason := due_end(facts, limits, now):
        return End(reason)
    if facts.machine_id:
        # A refusal that made a machine all the same, told by its body or found by its tag.
        return End(Reason.REFUSED) if facts.refused_at else Boot()
    if facts.launched_at is None:
        return Launch()
    if facts.refused_at is not None and unlisted(facts, limits):
        return Conclude(Reason.REFUSED)
    if proven_absent(facts, limits):
        return Conclude(Reason.LAUNCH_LOST)
    return Wait(facts.deadline)


def _booting(facts: Facts, limits: Limits, now: datetime) -> Action:
    if reason := due_end(facts, limits, now) or _useless(facts, limits, now, USELESS_GRACE_BOOTING):
        return End(reason)
    if unlisted(facts, limits):
        return End(Reason.VANISHED) if proven_absent(facts, limits) else LookUp()
    give_up = _boot_deadline(facts, limits)
    if now >= give_up and not _held(limits.hold_deadlines_until, now):
        if facts.has_target and (facts.probed_at is None or facts.probed_at < give_up):
            return Probe()  # A last look: we may have been away while it came up.
        return End(Reason.SSH_TIMEOUT if facts.up_since else Reason.BOOT_TIMEOUT)
    if facts.interruptible:
        return End(Reason.INTERRUPTIBLE)
    if facts.too_dear:
        return End(Reason.TOO_DEAR)
    if facts.mislabelled:
        return Relabel() if facts.can_relabel else End(Reason.LABEL_LOST)
    if _keys_due(facts, now, KEYS_AGAIN_BOOTING):
        return AttachKeys()
    if not facts.has_target:
        return Wait(min(give_up, facts.deadline))
    probe_at = _next_probe(facts, limits)
    return Probe() if probe_at is None or now >= probe_at else Wait(min(probe_at, give_up, facts.deadline))


def _running(facts: Facts, limits: Limits, now: datetime) -> Action:
    if reason := due_end(facts, limits, now) or _useless(facts, limits, now, USELESS_GRACE_RUNNING):
        return End(reason)
    if unlisted(facts, limits):
        return End(Reason.VANISHED) if proven_absent(facts, limits) else LookUp()
    if _idle_too_long(facts) and not _held(limits.hold_deadlines_until, now):
        return End(Reason.IDLE)
    if _keys_due(facts, now, KEYS_AGAIN_RUNNING):
        return AttachKeys()
    # Without a way in there is nothing to look at, and no instant at which to try.
    inspect_at = facts.inspected_at + facts.inspect_every if facts.inspected_at and facts.has_target else None
    if facts.has_target and (inspect_at is None or now >= inspect_at or facts.dead_man_due):
        return Inspect()
    return Wait(min(inspect_at or facts.deadline, facts.deadline))


def _destroying(facts: Facts, limits: Limits, now: datetime) -> Action:
    if proven_absent(facts, limits):
        return Conclude()
    if not facts.machine_id:
        return Wait(None)  # The next listings find it, or prove that it never was.
    ask_at = _next_ask(facts)
    if unlisted(facts, limits):
        # As long as no look-up is answered it may be there, hidden, and one more ask can't harm.
        ask_at = (touched_at(facts) or now) + _ASK_AGAIN_MOST
        if now < ask_at:
            return LookUp()
    if ask_at is None:
        return Wait(None)
    return AskDestroy() if now >= ask_at else Wait(ask_at)


def _destroyed(facts: Facts, limits: Limits, now: datetime) -> Action:
    return Wait(None)


_DECIDE = {
    State.LAUNCHING: _launching,
    State.BOOTING: _booting,
    State.RUNNING: _running,
    State.DESTROYING: _destroying,
    State.DESTROYED: _destroyed,
}


def due_end(facts: Facts, limits: Limits, now: datetime) -> Reason | None:
    """Deadlines hold in every state. After a jump of the clock they wait until it is trusted again."""
    if _held(limits.hold_deadlines_until, now):
        return None
    if now >= facts.hard_deadline:
        return Reason.HARD_MAX
    return Reason.EXPIRED if now >= facts.deadline else None


def _useless(facts: Facts, limits: Limits, now: datetime, grace: timedelta) -> Reason | None:
    if facts.useless_looks < 2 or facts.useless_since is None or facts.seen_at is None:
        return None
    lasted = facts.seen_at - facts.useless_since  # by sightings, not by the clock: an outage adds nothing
    if facts.machine_state is MachineState.BROKEN and lasted >= BROKEN_GRACE:
        return Reason.HOST_BROKEN
    return Reason.DIED if lasted >= grace and not _held(limits.hold_deadlines_until, now) else None


def _boot_deadline(facts: Facts, limits: Limits) -> datetime:
    launched = facts.launched_at or facts.deadline
    give_up = launched + limits.boot_timeout
    return min(give_up, facts.up_since + limits.ssh_timeout) if facts.up_since else give_up


def _next_probe(facts: Facts, limits: Limits) -> datetime | None:
    if facts.probed_at is None:
        return None
    return facts.probed_at + (limits.check_interval or _adaptive(facts.probed_at - (facts.up_since or facts.probed_at)))


def _adaptive(waited: timedelta) -> timedelta:
    """1 s between probes for the first two minutes, then growing to 15 s."""
    if waited <= _PROBE_EAGER:
        return PROBE_SOONEST
    return min(_PROBE_MOST, PROBE_SOONEST + (waited - _PROBE_EAGER) / 12)


def _keys_due(facts: Facts, now: datetime, again: timedelta) -> bool:
    """At first in any case, and again after a login was denied since."""
    if not facts.can_attach or not facts.machine_id:
        return False
    if facts.keyed_at is None:
        return facts.state is State.BOOTING
    denied = facts.denied_login_at is not None and facts.denied_login_at > facts.keyed_at
    return denied and now >= facts.keyed_at + again


def _idle_too_long(facts: Facts) -> bool:
    if facts.idle_threshold is None or facts.idle_since is None or facts.inspected_at is None:
        return False
    return facts.inspected_at - facts.idle_since >= facts.idle_threshold


def _next_ask(facts: Facts) -> datetime | None:
    """When to ask for the destruction (again); None while complete listings since the ask lack it."""
    if facts.asked_at is None:
        return datetime.min.replace(tzinfo=facts.deadline.tzinfo)
    seen_since = facts.seen_at is not None and facts.seen_at > facts.asked_at
    looked_since = facts.looked_at is not None and facts.looked_at > facts.asked_at
    if looked_since and not seen_since:
        return None
    return facts.asked_at + ask_again_after(facts.asks)


def ask_again_after(asks: int) -> timedelta:
    """10 s after the first ask, doubling to 5 min; for ever."""
    doublings = min(max(asks - 1, 0), 10)
    return min(_ASK_AGAIN_MOST, _ASK_AGAIN_FIRST * (1 << doublings))


# --- Sessions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An instance as its session sees it, oldest first."""

    state: State
    reason: Reason | None = None  # why it ended; None while alive
    has_machine_id: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A session: what its consumer wants, and how far it has come."""

    status: Status
    created_at: datetime
    end_reason: Reason | None = None
    expires_at: datetime | None = None  # None until a create was sent
    hard_deadline: datetime | None = None
    retries_left: int = 0
    launch_by: datetime | None = None  # nothing launched until then: give up


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """Insert the next instance, for the first offer or the next fitting one."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """An instance runs: the consumer may have it."""


@dataclass(frozen=True, slots=True)
class EndSession:
    """Wish the end of it and of every instance."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class EndInstances:
    """The session wants its end, and an instance does not know it yet."""


@dataclass(frozen=True, slots=True)
class Close:
    """Everything that it ever asked for is proven gone."""

    status: Status


SessionAction = Wait | OpenAttempt | HandOver | EndSession | EndInstances | Close


def decide_session(
    wish: Wish, attempts: Sequence[Attempt], now: datetime, hold_deadlines_until: datetime | None = None
) -> SessionAction:
    """The one next step for this session."""
    if wish.status in OVER:
        return Wait(None)
    if wish.end_reason is not None:
        return _ending(wish.end_reason, attempts)
    held = _held(hold_deadlines_until, now)
    if wish.expires_at is not None and now >= wish.expires_at:
        if held:
            return Wait(now + HELD_LOOK)
        hard = wish.hard_deadline is not None and wish.expires_at >= wish.hard_deadline
        return EndSession(Reason.HARD_MAX if hard else Reason.EXPIRED)
    if not attempts:
        too_late = wish.launch_by is not None and now >= wish.launch_by and not held
        return EndSession(Reason.NOT_LAUNCHED) if too_late else OpenAttempt()
    return _living(wish, attempts)


def _ending(reason: Reason, attempts: Sequence[Attempt]) -> SessionAction:
    if any(attempt.state in ALIVE for attempt in attempts):
        return EndInstances()
    if any(attempt.state is not State.DESTROYED for attempt in attempts):
        return Wait(None)
    return Close(Status.STOPPED if reason in GOOD_ENDS else Status.FAILED)


def _living(wish: Wish, attempts: Sequence[Attempt]) -> SessionAction:
    last = attempts[-1]
    # Pending, with a machine, is how it looks to a step that slept on its claim; somebody else hands it over.
    if last.state is State.RUNNING and wish.status is Status.PROVISIONING:
        return HandOver()
    if last.state in ALIVE:
        return Wait(own_end(wish.expires_at))
    reason = last.reason or Reason.DIED
    if wish.status is Status.RUNNING or reason not in RETRYABLE or wish.retries_left <= 0:
        return EndSession(reason)
    settled = all(
        attempt.state is State.DESTROYED or (attempt.state is State.DESTROYING and attempt.has_machine_id)
        for attempt in attempts
    )
    return OpenAttempt() if settled else Wait(own_end(wish.expires_at))


# A machine has its session's deadline and takes the session along. Two rows that wish for the same end at the same
# moment do the work twice, so the session looks a little later, in case no machine has.
SESSION_AFTER = timedelta(seconds=5)


def own_end(expires_at: datetime | None) -> datetime | None:
    """When a session looks whether it has expired."""
    return expires_at and expires_at + SESSION_AFTER


# --- Gates: no eyes, no hands -------------------------------------------------------------------------------

# A listing older than this shows a past in which a machine of ours could be missing.
EYES_OPEN_FOR = timedelta(minutes=5)
MAX_UNRESOLVED_CREATES = 3
DESTROY_OVERDUE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """What the gates look at, for one provider account."""

    looked_at: datetime | None
    braked: str = ""  # why an operator has to decide first
    unresolved_creates: int = 0
    oldest_destroy: datetime | None = None  # when the longest unfinished destruction was wished
    clock_off: timedelta = timedelta(0)  # by which our clock is ahead of a provider's, or behind, if that is too much


def closed_gate(account: AccountView, now: datetime) -> str:
    """Why nothing may be created at this account now; "" if it may."""
    if account.braked:
        return account.braked
    if account.clock_off:
        return f"our clock is {abs(account.clock_off).total_seconds():.0f} s off, by the providers' answers"
    if account.looked_at is None or abs(now - account.looked_at) > EYES_OPEN_FOR:
        return "the provider's account has not been seen completely for 5 minutes"
    if account.unresolved_creates >= MAX_UNRESOLVED_CREATES:
        return f"{account.unresolved_creates} earlier creates have no clear outcome yet"
    if account.oldest_destroy is not None and now - account.oldest_destroy > DESTROY_OVERDUE:
        return "a destruction is overdue by more than 10 minutes"
    return ""
