"""The verdict, by the sandbox's books: who lived too long, who was killed while somebody wanted it.

Pure. Our own rows are asked only what was wished and when; whether a machine existed, the provider says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Row = Mapping[str, Any]

# Ends that somebody wished, or that a deadline brought.
WISHED = {"released", "deleted", "teardown"}
DUE = {"expired", "hard_max"}
# Said of a machine that came up and was well, each of these would be a lie: the weather harms calls, not machines.
NEVER_TRUE = {"died", "vanished", "host_broken", "wrong_hardware", "idle", "too_dear", "interruptible", "label_lost"}
# From being unwanted to being gone, bad weather of the provider not counted. A frozen worker holds a row for
# 30 s and its leftovers for as long again; the guardian steps in after a minute.
BOUND = timedelta(seconds=150)


@dataclass
class Evidence:
    machines: Sequence[
        Row
    ]  # the sandbox's: id, provider, label, created_at, destroyed_at, destroyed_by, deletes, cost_micros
    sessions: Sequence[Row]
    instances: Sequence[Row]
    endings: Mapping[Any, datetime]  # instance id -> when its end was first decided
    deployment: str
    creates: Mapping[str, int] = field(default_factory=dict)  # calls that the sandbox received, by label
    bad_weather: Sequence[tuple[datetime, datetime]] = ()
    costs: Mapping[str, int] = field(default_factory=dict)  # session id -> micro-dollars by our books


@dataclass
class Verdict:
    counts: dict[str, Any]
    violations: list[str]


class Judge:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.violations: list[str] = []
        self.sessions = {row["id"]: row for row in evidence.sessions}
        self.by_machine = {(row["provider"], row["machine_id"]): row for row in evidence.instances if row["machine_id"]}
        prefix = f"gs-{evidence.deployment}-"
        self.ours = [machine for machine in evidence.machines if (machine["label"] or "").startswith(prefix)]
        self.strangers = [machine for machine in evidence.machines if machine not in self.ours]

    def verdict(self) -> Verdict:
        orphans = sum(self._is_orphan(machine) for machine in self.ours)
        false_kills = sum(self._is_false_kill(machine) for machine in self.ours)
        touched = sum(self._is_touched(machine) for machine in self.strangers)
        longest, cause = self._longest_unwanted()
        self._sessions_are_over()
        self._one_create_for_a_tag()
        return Verdict(
            {
                "sessions": len(self.evidence.sessions),
                "by_status": dict(Counter(row["status"] for row in self.evidence.sessions)),
                "machines": len(self.ours),
                "ends": dict(Counter(row["end_reason"] or "none" for row in self.evidence.instances)),
                "orphans": orphans,
                "false_kills": false_kills,
                "strangers": len(self.strangers),
                "strangers_touched": touched,
                "longest_unwanted_seconds": round(longest.total_seconds(), 1),
                "longest_unwanted_cause": cause,
                **self._money(),
            },
            self.violations,
        )

    def _accuse(self, machine: Row, what: str) -> bool:
        self.violations.append(f"{machine['provider']} {machine['id']} ({machine['label']}): {what}")
        return True

    def _row(self, machine: Row) -> Row | None:
        return self.by_machine.get((machine["provider"], machine["id"]))

    # --- No orphan ---------------------------------------------------------------------------------------

    def _is_orphan(self, machine: Row) -> bool:
        if machine["destroyed_at"] is None:
            return self._accuse(machine, "still lives, although every session is over")
        late = self._unwanted_for(machine)
        return late > BOUND and self._accuse(machine, f"lived {late.total_seconds():.0f} s longer than anybody wanted")

    def _unwanted_for(self, machine: Row) -> timedelta:
        gone = machine["destroyed_at"]
        since = min([*self._unwanted_since(machine), gone])
        return max(timedelta(0), gone - since - self._weather_between(since, gone))

    def _unwanted_since(self, machine: Row) -> list[datetime]:
        row = self._row(machine)
        if row is None or row["session_id"] is None:
            return [machine["created_at"]]  # Nobody ever wanted it: a second one, or one nobody heard of.
        session = self.sessions[row["session_id"]]
        moments = [session["wished_at"], row["deadline"], self.evidence.endings.get(row["id"])]
        return [max(moment, machine["created_at"]) for moment in moments if moment is not None]

    def _weather_between(self, since: datetime, until: datetime) -> timedelta:
        """How much of the time the provider was in bad weather; overlapping spells count once."""
        total, reached = timedelta(0), since
        for begin, end in sorted(self.evidence.bad_weather):
            begin, end = max(begin, reached), min(end, until)
            if begin < end:
                total, reached = total + (end - begin), end
        return total

    def _longest_unwanted(self) -> tuple[timedelta, str]:
        spans = [
            (self._unwanted_for(machine), self._cause(machine)) for machine in self.ours if machine["destroyed_at"]
        ]
        return max(spans, default=(timedelta(0), ""))

    def _cause(self, machine: Row) -> str:
        row = self._row(machine)
        return "unknown to our rows" if row is None else str(row["end_reason"])

    # --- No false kill ------------------------------------------------------------------------------------

    def _is_false_kill(self, machine: Row) -> bool:
        if machine["destroyed_by"] != "api":
            return False
        row = self._row(machine)
        if row is None:
            return self._accuse(machine, "was destroyed, and no row of ours knows it")
        decided = self.evidence.endings.get(row["id"])
        if decided is None or decided > machine["destroyed_at"]:
            return self._accuse(machine, "was destroyed before its end was decided")
        if row["session_id"] is None:
            return False  # Found, and wanted by no session.
        return self._was_wanted(machine, row, self.sessions[row["session_id"]])

    def _was_wanted(self, machine: Row, row: Row, session: Row) -> bool:
        gone, reason = machine["destroyed_at"], row["end_reason"]
        wished = session["wished_at"] is not None and session["wished_at"] <= gone
        if reason in WISHED:
            return not wished and self._accuse(machine, f"was destroyed as {reason}, and nobody had wished it")
        if reason in DUE:
            due = row["deadline"] <= gone
            return not due and self._accuse(machine, f"was destroyed as {reason} before its deadline {row['deadline']}")
        if row["verified_at"] is not None or reason in NEVER_TRUE:
            return self._accuse(machine, f"was destroyed as {reason}, and was well")
        return False  # It never came up for us: refused, or given up.

    def _is_touched(self, machine: Row) -> bool:
        harmed = machine["destroyed_at"] is not None or machine["deletes"] > 0
        return harmed and self._accuse(machine, "belongs to somebody else and was touched")

    # --- Books ---------------------------------------------------------------------------------------------

    def _sessions_are_over(self) -> None:
        for row in self.evidence.sessions:
            if row["status"] not in ("stopped", "failed"):
                self.violations.append(
                    f"session {row['id']} is still {row['status']} ({row['end_reason'] or 'no reason'})"
                )
        for row in self.evidence.instances:
            if row["state"] != "destroyed":
                self.violations.append(
                    f"instance {row['id']} ({row['provider']} {row['machine_id']}) is still {row['state']}"
                )

    def _one_create_for_a_tag(self) -> None:
        rows = Counter(row["tag"] for row in self.evidence.instances if row["adopted_at"] is None)
        for label, calls in self.evidence.creates.items():
            if calls > 1 or rows[label] != 1:
                self.violations.append(f"{label}: {calls} creates were sent for {rows[label]} rows")

    def _money(self) -> dict[str, Any]:
        """What each session costs by our books, and what the provider bills for its machines."""
        billed: Counter[str] = Counter()
        for machine in self.ours:
            row = self._row(machine)
            billed[str(row["session_id"]) if row else "nobody's"] += machine["cost_micros"]
        differences = {name: abs(counted - billed[name]) for name, counted in self.evidence.costs.items()}
        return {
            "billed_usd": round(sum(billed.values()) / 1e6, 6),
            "counted_usd": round(sum(self.evidence.costs.values()) / 1e6, 6),
            "worst_cost_difference_usd": round(max(differences.values(), default=0) / 1e6, 6),
        }


def judge(evidence: Evidence) -> Verdict:
    return Judge(evidence).verdict()


def instants(rows: Iterable[Row], *names: str) -> list[dict[str, Any]]:
    """The rows with their times read."""
    return [{**row, **{name: row[name] and datetime.fromisoformat(row[name]) for name in names}} for row in rows]
