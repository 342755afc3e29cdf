"""What a provider is to us: its words, its verbs, and the four ways in which it can fail.

Pure. An adapter (`vastai`, `tensordock`, or a plug-in) turns these verbs into HTTP and whatever comes
back into these values. Everything above this package knows providers only through this file.

Theirs and ours have different nouns: a provider has *quotes* and *machines*; we keep *offers*
(`inventory`) and *instances* (`sessions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, runtime_checkable

from providers.money import micros

# --- Values -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a machine costs. USD per hour for the whole machine, but for storage: USD per GB and hour.

    `None` means the provider did not say; a machine with an unknown part has no price, rather than a
    low one.
    """

    gpu: Decimal
    storage_per_gb: Decimal | None = Decimal(0)
    cpu: Decimal | None = Decimal(0)
    ram: Decimal | None = Decimal(0)

    def parts(self, disk_gb: int) -> PriceParts | None:
        if self.storage_per_gb is None or self.cpu is None or self.ram is None:
            return None
        return PriceParts(
            gpu=micros(self.gpu),
            storage=micros(self.storage_per_gb * disk_gb),
            cpu=micros(self.cpu),
            ram=micros(self.ram),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceParts:
    """Micro-dollars per hour."""

    gpu: int
    storage: int = 0
    cpu: int = 0
    ram: int = 0

    @property
    def total(self) -> int:
        return self.gpu + self.storage + self.cpu + self.ram


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One line of a provider's menu, as the provider states it now. A hint, not a promise."""

    provider_id: str  # names the quote in `LaunchSpec.quote_id`
    gpu_name: str  # as the provider writes it; `inventory.gpus` normalises
    gpu_count: int
    vram_gb: int  # of one GPU
    rates: Rates
    location: str = ""
    country: str = ""  # ISO 3166 alpha-2, upper case; "" if not known
    reliability: float | None = None  # 0..1
    available: bool = True
    interruptible: bool = False
    max_duration_hours: float = 0  # 0: no limit stated
    cuda_version: str = ""  # highest that the driver claims to run, such as "12.8"
    cpu_cores: int = 0
    ram_gb: int = 0
    disk_gb: int = 0  # most that can be rented
    min_disk_gb: int = 0  # least that can be rented
    internet_mbps_down: float = 0
    host: str = ""  # names the physical host, so that a broken one can be avoided


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """A machine to be made. `label` is the tag that signs it as ours."""

    label: str
    quote_id: str
    gpu_name: str  # the provider's own name, from the quote
    gpu_count: int
    disk_gb: int
    cpu_cores: int
    ram_gb: int
    ssh_public_keys: tuple[str, ...]
    image: str = ""  # "": the adapter's default
    template_hash_id: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    onstart: str = ""  # the consumer's own start script
    hard_deadline: datetime | None = None  # the dead man's switch on the machine fires soon after
    max_price: int | None = None  # micro-dollars per hour; a dearer machine is not wanted

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is the consumer's own: a provider may echo it in an answer, and nobody else may read it there."""
        return (*self.env.values(), self.onstart, *self.ssh_public_keys)


class MachineState(StrEnum):
    """What a provider's own words mean to us. None of them means that the machine does not exist."""

    STARTING = "starting"
    UP = "up"  # said to run; whether it can be used, SSH decides
    DOWN = "down"  # stopped, outbid, exited, its host lost: exists, bills, is of no use
    BROKEN = "broken"  # the provider says that it can't start
    LEAVING = "leaving"  # said to be on its way out
    UNKNOWN = "unknown"  # a word we do not know


@dataclass(frozen=True, slots=True)
class SshTarget:
    host: str
    port: int
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine in the provider's books: whatever is listed exists and may bill."""

    id: str
    label: str | None  # None: the provider did not tell (not: has none, which is "")
    state: MachineState
    status: str = ""  # the provider's words, for people; no secrets
    ssh_targets: tuple[SshTarget, ...] = ()  # in the order in which to try them; () while unknown
    gpu_name: str = ""
    gpu_count: int = 0
    interruptible: bool | None = None
    price: PriceParts | None = None  # as rented, while running; None: not told
    started_at: datetime | None = None
    ends_at: datetime | None = None  # the provider itself ends the rental then
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of a provider's bill."""

    machine_id: str
    label: str
    kind: str  # gpu, storage, network, other
    started_at: datetime
    ended_at: datetime
    amount: int  # micro-dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose key this is. `id` is "" where the provider has no way of telling."""

    id: str
    balance: int | None = None  # micro-dollars; may be negative; None: not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What differs between providers and matters above this package. Each with a safe default."""

    settle: timedelta = timedelta(minutes=10)  # how long a listing may lack what a create has made
    min_disk_gb: int = 0
    disk_step_gb: int = 1
    can_relabel: bool = False
    can_attach: bool = False  # keys can be added to a machine that is there
    takes_image: bool = True
    takes_template: bool = False
    takes_env: bool = False
    takes_onstart: bool = False
    has_charges: bool = False
    bills_stopped: bool = True
    dead_man: str = ""  # what the switch on the machine does: "destroys", "powers_off", "": none


# --- Errors: one for each decision that a caller takes ------------------------------------------------


class ProviderError(Exception):
    """Something went wrong between us and a provider. The message is fit for a person and for logs:
    it carries neither secrets nor the provider's raw body."""


class Unavailable(ProviderError):
    """No usable answer. Whatever was asked may have happened; nothing is known that was not known before.

    `retry_after`: seconds to keep away, where the provider said so or its limiter is known.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotSent(Unavailable):
    """Held back here, since the provider's limits would refuse it now: nothing was sent, nothing has happened."""


class Unauthorized(ProviderError):
    """The provider rejected our credentials. Check the key in the environment; running sessions are
    kept as they are until it works again."""


class NotUnderstood(ProviderError):
    """The provider answered something this adapter does not know. It says nothing about any machine."""


class Refusal(StrEnum):
    """Why a create was refused; each asks for another reaction."""

    OFFER_GONE = "offer_gone"  # take another offer
    PRICE = "price"  # the price moved: look at the menu again
    HOST = "host"  # this host won't have us: take another
    NO_MONEY = "no_money"  # stop, and tell an operator
    INVALID = "invalid"  # our request was wrong: no offer will do
    BUSY = "busy"  # rate limited before anything was made: the same offer may do later


class Refused(ProviderError):
    """The provider said no to a create, in a form known to mean no.

    `machine_id` is set when it made a machine all the same (Vast.ai: `success: false` with
    `new_contract`); that machine bills and has to be destroyed.
    """

    def __init__(self, message: str, *, why: Refusal, machine_id: str | None = None) -> None:
        super().__init__(message)
        self.why = why
        self.machine_id = machine_id


# --- Verbs --------------------------------------------------------------------------------------------


@runtime_checkable
class Provider(Protocol):
    """One account at one provider. Any verb may raise `Unavailable`, `Unauthorized`, `NotUnderstood`.

    Reads may be retried inside; `create`, `destroy`, `relabel` send exactly one request for each call.
    """

    name: str
    traits: Traits

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        """The whole menu, storage priced for `disk_gb`. Raises rather than return a part of it."""

    def machines(self) -> Sequence[Machine]:
        """Every machine of the account, foreign ones too. Complete, or it raises."""

    def machine(self, machine_id: str) -> Machine | None:
        """One machine. `None` only if the provider itself said that it has no such machine."""

    def create(self, spec: LaunchSpec) -> str:
        """Rent `spec.quote_id` and return the id of the new machine.

        Not idempotent: neither provider has an idempotency key.

        Raises:
            Refused: nothing was made, unless `machine_id` is set.
            Unavailable, NotUnderstood: the machine may exist under `spec.label`.
        """

    def destroy(self, machine_id: str) -> None:
        """Ask for the end of a machine. Returning is no proof: both providers say yes to deletes that
        do nothing. A machine that is already gone is not an error."""

    def attach_key(self, machine_id: str, public_key: str) -> None:
        """Let `public_key` log in, where the provider can add keys to a machine; else do nothing.
        A key that is there already is not an error."""

    def relabel(self, machine_id: str, label: str) -> None:
        """Only if `traits.can_relabel`."""

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        """The bill of those UTC days. Only if `traits.has_charges`; empty may mean "not yet"."""

    def account(self) -> Account:
        """Whose key this is; also the cheapest check that the key works."""
