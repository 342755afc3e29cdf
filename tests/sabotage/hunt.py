"""Running what has to notice a mistake, and telling "noticed" from "fell over"."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sabotage import MISTAKE, REPORT

ROOT = Path(__file__).parents[2]
AT_MOST = 240.0  # seconds for one hunter

# The least that a process needs from outside. The more is left out, the less differs from one computer to another.
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Found:
    """What one hunter has found: a catch, a fall for another reason (then nothing is known), or nothing."""

    caught_by: str = ""
    broken: str = ""

    @property
    def is_green(self) -> bool:
        return not self.caught_by and not self.broken


@dataclass(frozen=True)
class Hunt:
    """What all hunters of one mistake have found. Without a mistake there has to be nothing."""

    mistake: str
    found: dict[str, Found]  # by hunter
    seconds: float

    @property
    def is_good(self) -> bool:
        return all(bool(each.caught_by) if self.mistake else each.is_green for each in self.found.values())

    def lines(self) -> Iterator[str]:
        took = f"{self.seconds:6.1f} s"
        for hunter, each in self.found.items():
            yield f"{took:>8}  {self._told(hunter, each)}"
            took = ""

    def _told(self, hunter: str, found: Found) -> str:
        if found.broken:
            return f"BROKEN: {found.broken}"
        if self.mistake:
            return found.caught_by or f"SURVIVED {hunter}"
        what = f"{hunter.count('::')} tests" if is_pytest(hunter) else hunter
        return f"NOT GREEN: {found.caught_by}" if found.caught_by else f"{what}: green"


def hunt(mistake: str, hunters: Sequence[str]) -> Hunt:
    """Each hunter in a process of its own, one after the other."""
    began = time.monotonic()
    found = {hunter: run(mistake, hunter) for hunter in hunters}
    return Hunt(mistake, found, time.monotonic() - began)


def run(mistake: str, hunter: str) -> Found:
    """`hunter` is what follows `pytest` or `python -m tests.simulation`."""
    with tempfile.TemporaryDirectory(prefix="gpu-shopper-sabotage-") as folder:
        report = Path(folder, "report")
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {MISTAKE: mistake, REPORT: str(report), "HYPOTHESIS_STORAGE_DIRECTORY": folder}
        code, output = _process(_command(hunter), environment)
        told = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    return judge(hunter, code, output, told)


def is_pytest(hunter: str) -> bool:
    return hunter.startswith("tests/")


def _command(hunter: str) -> list[str]:
    if is_pytest(hunter):
        options = ["-x", "-p", "tests.sabotage.witness", "-p", "no:cacheprovider"]
        return [sys.executable, "-m", "pytest", *options, *hunter.split()]
    return [sys.executable, "-m", "tests.simulation", *shlex.split(hunter)]


def _process(command: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Its exit code and what it printed; -1 if it took too long."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=AT_MOST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return -1, f"it took more than {AT_MOST:g} s"
    return process.returncode, output or errors


def judge(hunter: str, code: int, output: str, told: Sequence[dict[str, Any]]) -> Found:
    """Caught is: a test's claim failed, or an invariant was violated. A mistake that stumbled is broken."""
    for line in told:
        if "broken" in line:
            return Found(broken=f"the mistake itself: {line['broken']}")
    if code == 0:
        return Found()
    caught = _failed_claim(told) if is_pytest(hunter) else _violation(output)
    if code == 1 and caught:
        return Found(caught_by=caught)
    last = told[-1]["text"] if told else " ".join(output.split())[-300:]
    return Found(broken=f"{hunter[:60]}: exit code {code}: {last}")


def _failed_claim(told: Sequence[dict[str, Any]]) -> str:
    return next((line["test"] for line in told if line["claimed"]), "")


def _violation(output: str) -> str:
    """The first violated invariant with the command that shows it again; "" if runs only fell over."""
    try:
        failures = json.loads(output)["failures"]
    except (ValueError, KeyError):
        return ""
    for failure in failures:
        for violation in failure["violations"]:
            lines = violation.strip().splitlines()
            fell_over = len(lines) > 1 and not lines[-1].startswith("AssertionError")
            if lines and not fell_over:
                return f"{lines[-1]} [{failure['replay']}]"
    return ""
