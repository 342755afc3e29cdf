"""A measured figure, and the target that it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    at_most: float | None = None  # None: told, no target
    note: str = ""

    def told(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"value": round(self.value, 4), "unit": self.unit}
        if self.at_most is not None:
            shown |= {"target": self.at_most, "met": self.value <= self.at_most}
        return {**shown, "note": self.note} if self.note else shown


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """The smallest value that 95 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]
