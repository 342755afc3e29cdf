"""A few threads for each kind of work; whoever finds none free leaves his task to those who have one.

A provider that does not answer must not take all of a process's threads. What is left here and lost with the
process is still due in its row.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

# What one thread does for others before its own task ends; the rest comes with the next tick.
AT_MOST = 50


class Seats:
    """At most `count` threads at once, for each `kind` of work that is named."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kinds: dict[str, tuple[threading.BoundedSemaphore, deque[str]]] = {}
        self._lock = threading.Lock()

    def work(self, kind: str, item: str, step: Callable[[str], object]) -> None:
        """`step(item)`, here and now or by a thread that is at work of this kind already."""
        free, waiting = self._of(kind)
        with self._lock:
            if item not in waiting:
                waiting.append(item)
        for _ in range(AT_MOST):
            # One that is left just as the last thread gets up: either that thread sees it, or its owner finds a seat.
            if not waiting or not free.acquire(blocking=False):
                return
            try:
                if (first := self._next(waiting)) is not None:
                    step(first)
            finally:
                free.release()

    def clear(self) -> None:
        with self._lock:
            self._kinds.clear()

    def _next(self, waiting: deque[str]) -> str | None:
        with self._lock:
            return waiting.popleft() if waiting else None

    def _of(self, kind: str) -> tuple[threading.BoundedSemaphore, deque[str]]:
        with self._lock:
            return self._kinds.setdefault(kind, (threading.BoundedSemaphore(self.count), deque()))
