"""Pictures of money as shapes on a plane: where they lie and how large they are, not how they look.

Pure. Amounts are integer micro-dollars; x and y are units of the drawing, from its upper left corner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from providers.money import dollars

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 10, 26
STEPS = 4  # of the scale, at most
COLOURS = 7  # that can be told apart; whoever comes after these shares the last place
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Block:
    """One name's part of one day."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    name: str
    day: date
    text: str  # what it cost


@dataclass(frozen=True, slots=True)
class Mark:
    """A word at the edge of the drawing."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    blocks: Sequence[Block]
    scale: Sequence[Mark]
    calendar: Sequence[Mark]
    names: Sequence[str]  # in the order of their colours, the largest first
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def ranked(amounts: Mapping[tuple[date, str], int]) -> list[str]:
    """The names, the one that costs most first; equals by the alphabet."""
    sums: defaultdict[str, int] = defaultdict(int)
    for (_, name), amount in amounts.items():
        sums[name] += amount
    return sorted(sums, key=lambda name: (-sums[name], name))


def few(amounts: Mapping[tuple[date, str], int]) -> tuple[dict[tuple[date, str], int], list[str]]:
    """No more names than there are colours: the smallest become `others`."""
    names = ranked(amounts)
    if len(names) <= COLOURS:
        return dict(amounts), names
    kept = names[: COLOURS - 1]
    found: defaultdict[tuple[date, str], int] = defaultdict(int)
    for (day, name), amount in amounts.items():
        found[day, name if name in kept else OTHERS] += amount
    return dict(found), [*kept, OTHERS]


def stacked(days: Sequence[date], amounts: Mapping[tuple[date, str], int]) -> Chart:
    """A column for each day, with the parts of each name on top of each other."""
    shown, names = few(amounts)
    sums = [sum(shown.get((day, name), 0) for name in names) for day in days]
    step = scale_step(max(sums, default=0))
    most = step * max(1, -(-max(sums, default=0) // step))
    column = (WIDTH - LEFT - RIGHT) / max(1, len(days))
    blocks = []
    for number, day in enumerate(days):
        base = 0
        for colour, name in enumerate(names):
            amount = shown.get((day, name), 0)
            if amount > 0:
                top = _height(base + amount, most)
                blocks.append(
                    Block(
                        x=round(LEFT + column * (number + 0.12), 2), y=round(HEIGHT - BOTTOM - top, 2),
                        width=round(column * 0.76, 2), height=round(top - _height(base, most), 2),
                        colour=colour, name=name, day=day, text=dollars(amount),
                    )
                )  # fmt: skip
            base += amount
    scale = [
        Mark(round(HEIGHT - BOTTOM - _height(amount, most), 2), axis_text(amount, step))
        for amount in range(0, most + 1, step)
    ]
    return Chart(blocks, scale, _calendar(days, column), names)


def _height(amount: int, most: int) -> float:
    return (HEIGHT - BOTTOM - TOP) * amount / most


def scale_step(most: int) -> int:
    """A round amount, 1, 2 or 5 and zeros, of which at most `STEPS` reach up to `most`."""
    size = 10_000  # a cent
    while True:
        for digit in (1, 2, 5):
            if digit * size * STEPS >= most:
                return digit * size
        size *= 10


def axis_text(amount: int, step: int) -> str:
    """Dollars, with cents where the steps have some."""
    return f"${amount / 1_000_000:,.0f}" if step % 1_000_000 == 0 else f"${amount / 1_000_000:,.2f}"


def _calendar(days: Sequence[date], column: float) -> list[Mark]:
    """The first day and each fifth: a word for each would not fit."""
    return [
        Mark(round(LEFT + column * (number + 0.5), 2), f"{day.day}")
        for number, day in enumerate(days)
        if len(days) <= 10 or day.day == 1 or day.day % 5 == 0
    ]


# --- Budgets -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A budget as a bar of 100 units: from the left what is spent, what is reserved, and where thresholds lie."""

    spent: float
    reserved: float
    thresholds: Sequence[float]
    percent: int  # spent, of the limit; may be above 100
    is_over: bool

    @property
    def filled(self) -> float:
        return self.spent + self.reserved


def bar(limit: int, spent: int, reserved: int, thresholds: Sequence[int]) -> Bar:
    """Of a budget; `thresholds` in ten-thousandths of its limit. What is beyond the limit is not drawn."""
    if limit <= 0:
        return Bar(100, 0, (), 100, is_over=True)
    shown = min(100.0, spent * 100 / limit)
    return Bar(
        spent=round(shown, 2), reserved=round(min(100 - shown, reserved * 100 / limit), 2),
        thresholds=[each / 100 for each in thresholds if each < 10_000],
        percent=spent * 100 // limit, is_over=spent >= limit,
    )  # fmt: skip
