"""Bills and our own figures side by side.

Pure. Amounts are integer micro-dollars.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from costs.days import day_of
from providers.base import Charge


@dataclass(frozen=True, slots=True)
class Comparison:
    """What we counted, and what the provider charged for the same; None: it has charged nothing yet, or never tells."""

    estimated: int
    billed: int | None

    @property
    def difference(self) -> int | None:
        """Above zero: the provider charges more than we have shown."""
        return None if self.billed is None else self.billed - self.estimated

    @property
    def error_percent(self) -> float | None:
        """How far our figure is from the bill, in per cent of the bill; None without one, or of nothing."""
        return round((self.estimated - self.billed) * 100 / self.billed, 4) if self.billed else None


def lines_of(day: date, charges: Iterable[Charge]) -> Mapping[str, Sequence[Charge]]:
    """By machine, the charges that begin in this day.

    One that began earlier belongs to the day in which it began: a provider that shows a charge on each day that it
    touches would else be believed to have charged it on each of them.
    """
    found: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        if day_of(charge.started_at) == day:
            found[charge.machine_id].append(charge)
    return found


def paid(balances: Sequence[int]) -> int:
    """What an account has spent between its first and last known balance, in the order of time.

    What raises a balance is money put in. What was spent between the same two readings hides behind it, so this is
    the least that was spent.
    """
    return sum(max(0, earlier - later) for earlier, later in pairwise(balances))
