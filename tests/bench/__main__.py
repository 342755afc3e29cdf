"""`python -m tests.bench [NAME...]`: measure, and print ONE JSON object of figures and targets.

Each part runs in a process of its own, so that none measures what another left behind. Figures are of the
machine that they were taken on and of whatever else it was doing; `load` says how much that was.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
# Each is a module in here with `run() -> list[Figure]`; one that is not there is left out.
PARTS = ("menu", "listing", "embedded", "lives", "costs", "budgets")
WITHIN = 900.0


def main(names: list[str]) -> int:
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {}
    for name in names or [part for part in PARTS if (Path(__file__).parent / f"{part}.py").exists()]:
        figures |= measured(name)
    missed = sorted(name for name, told in figures.items() if told.get("met") is False)
    report = {
        "machine": {"python": platform.python_version(), "processors": os.cpu_count(), "load_before": round(load, 2)},
        "figures": figures,
        "missed": missed,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


def measured(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.part", name], capture_output=True, text=True, timeout=WITHIN, cwd=ROOT,
        check=False,
    )  # fmt: skip
    if done.returncode:
        return {name: {"error": done.stderr.strip().splitlines()[-1:], "met": False}}
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
