"""Which ways of failing are covered, and by which tests.

The rows are those of the two tables of known failures: V1 to V39 at Vast.ai, F1 to F39 at TensorDock. A test says
which it shows; `test_rows` says whether one is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

ALL = {f"{table}{number}" for table in "VF" for number in range(1, 40)}
SHOWN: dict[str, list[str]] = {}

Test = TypeVar("Test", bound=Callable[..., None])


def shows(*rows: str) -> Callable[[Test], Test]:
    def note(test: Test) -> Test:
        for row in rows:
            SHOWN.setdefault(row, []).append(f"{test.__module__}.{test.__qualname__}")
        return test

    return note
