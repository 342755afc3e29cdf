"""Making a failure small: the fewest steps of a life that still go wrong.

Pure; delta debugging after Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

Fails = Callable[[Sequence[int]], bool]


def shrink(steps: Sequence[int], fails: Fails, may_go_on: Callable[[], bool]) -> list[int]:
    """A part of `steps`, which fail, that fails too: if one may go on for so long, no single step can be left out."""
    kept, parts = list(steps), 2
    while len(kept) >= 2:
        for rest in _without_one_part(kept, parts):
            if not may_go_on():
                return kept
            if fails(rest):
                kept, parts = rest, max(2, parts - 1)
                break
        else:
            if parts >= len(kept):
                return kept
            parts = min(len(kept), 2 * parts)
    return kept


def _without_one_part(steps: list[int], parts: int) -> list[list[int]]:
    edges = [len(steps) * number // parts for number in range(parts + 1)]
    return [steps[:start] + steps[end:] for start, end in pairwise(edges)]
