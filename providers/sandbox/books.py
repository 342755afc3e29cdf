"""What the sandbox keeps books of: accounts, machines with all that happens to them, calls. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from providers.sandbox.guest import Guest
from providers.sandbox.ssh import key_line, make_host_key

MICROS = 1_000_000


# --- How long machines take to come up, in seconds after the create ------------------------------------------


@dataclass(frozen=True)
class Boot:
    listed: float  # visible to listings and look-ups
    up: float  # said to run
    address: float  # its address is told
    door: float  # the SSH port answers
    keys: float  # keys given at create are there; a key attached later needs `attach`
    attach: float


BOOTS = {
    "instant": Boot(0, 0, 0, 0, 0, 0),
    "demo": Boot(0, 1.5, 1.5, 2.5, 3, 1),
    # vastai §2.5: running in 1 to 10 min, the port 30 to 60 s later, the key 10 to 20 s after that.
    "true": Boot(2, 45, 50, 90, 105, 12),
}


# --- Books --------------------------------------------------------------------------------------------------


@dataclass
class Account:
    id: str
    credit: int = 100 * MICROS  # micro-dollars


@dataclass(slots=True)
class Call:
    """One line of the log. No URL: a query may carry a key."""

    at: datetime
    provider: str
    operation: str
    method: str
    route: str
    machine: str = ""
    label: str = ""
    outcome: str = ""  # the status that was answered; "lost": the connection died; "silence": no answer came


@dataclass(frozen=True)
class Rate:
    """Micro-dollars per hour, by what they are for."""

    gpu: int = 0
    storage: int = 0
    cpu: int = 0
    ram: int = 0

    @property
    def total(self) -> int:
        return self.gpu + self.storage + self.cpu + self.ram


NOTHING = Rate()


@dataclass
class Machine:
    """A rented machine, from the create on; it stays in the books after its end."""

    id: str
    provider: str
    account: str
    label: str | None  # as the provider shows it
    sent_label: str  # as it was asked for
    offer: Any  # the `catalogue.Ask` or the place that it came from
    offer_id: str  # as it was when this was rented; an ask comes back under another
    model: int
    count: int
    disk_gb: int
    rate: Rate
    created_at: datetime
    guest: Guest
    asked: dict[str, Any]  # what the create said, for the wire
    faults: dict[str, Any] = field(default_factory=dict)
    boot: Boot = BOOTS["instant"]
    state: str = "booting"  # booting, up, stopped, offline, disassociated, broken
    wanted: str = "running"
    number: int = 0
    switch_at: int | None = None  # unix seconds that its dead man's switch goes by; None: it has none
    listed_at: datetime | None = None
    has_address: bool = False
    has_door: bool = False
    keys_from: datetime | None = None  # no key logs in before
    wiped: bool = False
    host_seed: str = ""
    destroyed_at: datetime | None = None
    destroyed_by: str = ""
    shown_until: datetime | None = None  # its row lingers
    deletes: int = 0
    returned: bool = False  # its id was told in an answer to the create
    touched: bool = False  # somebody called for a change of it
    rates: list[tuple[datetime, Rate]] = field(default_factory=list)
    address: tuple[str, int] = ("", 0)

    @property
    def host_key(self) -> str:
        return key_line(make_host_key(self.host_seed))

    @property
    def exists(self) -> bool:
        return self.destroyed_at is None

    def is_shown(self, now: datetime) -> bool:
        """Whether the provider's answers know of it: a row may come late, and linger."""
        if self.destroyed_at is not None:
            return self.shown_until is not None and now < self.shown_until
        return self.listed_at is None or now >= self.listed_at
