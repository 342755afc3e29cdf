"""What others want to know, may forbid, or can tell, at the moment at which it matters.

This app can't import those above it; `gpushopper.wiring` puts their functions here. The lists are called
inside the writer's own transaction, so what they write stands or falls with the move itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from providers.base import PriceParts

if TYPE_CHECKING:
    from sessions.models import Event, Instance, Session

# A session is about to be recorded, or extended. May raise `rest.errors.Problem` to forbid it.
before_commitment: list[Callable[[Session, datetime], None]] = []


def _nothing_stands_against_it(session: Session) -> str:
    return ""


# Why a session may not get its next machine before the end of its last one is proven; "" if it may.
no_second_machine: Callable[[Session], str] = _nothing_stands_against_it

# From `at` on, the instance costs `parts` (micro-dollars per hour); None: nothing any more.
metered: list[Callable[[Instance, datetime, PriceParts | None], None]] = []

# An event has been written.
told: list[Callable[[Event], None]] = []

# A complete listing of the provider's account, begun at that instant, has been written down.
each_listing: list[Callable[[str, datetime], None]] = []

# An engine has done a round, at most once a tick: for periodic work that must not depend on the broker.
each_round: list[Callable[[datetime], None]] = []


def _nobody_counts(sessions: Sequence[UUID], now: datetime) -> Mapping[UUID, int]:
    return {}


# What sessions have cost until now, in micro-dollars; one that is missing has cost nothing.
costs_of: Callable[[Sequence[UUID], datetime], Mapping[UUID, int]] = _nobody_counts
