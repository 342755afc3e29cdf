"""`manage.py cleanup_orphans`: machines with our label that no live session stands for."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from providers import clock, registry, tag
from providers.base import Machine, Provider, ProviderError
from providers.tag import Ownership
from sessions import engine, reconcile
from sessions.lifecycle import ALIVE, State
from sessions.models import Instance

ACTOR = "manage.py cleanup_orphans"


@dataclass(frozen=True)
class Finding:
    machine: Machine
    verdict: str  # orphan, leaving, suspect
    why: str


class Command(BaseCommand):
    help = (
        "Compare each provider's account with the database and show machines of ours that nobody wants. A dry run "
        "unless --execute. A machine of a live session is never among them, nor is anything without our signed label."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--execute", action="store_true", help="destroy them, and wait for the proof")
        parser.add_argument("--force", action="store_true", help="do not ask; and do not wait out ORPHAN_GRACE_PERIOD")
        parser.add_argument("--provider", help="only there")
        parser.add_argument("--wait", type=float, default=600, help="seconds to wait for the proof (default 600)")

    def handle(self, *args: Any, **options: Any) -> None:
        blind, found = [], 0
        for name, provider in self._providers(options["provider"]).items():
            try:
                findings = list(findings_of(provider))
            except ProviderError as error:
                self.stderr.write(f"{name}: no complete listing: {error}")
                blind.append(name)
                continue
            found += self._show(name, findings)
            if options["execute"]:
                self._execute(name, [f for f in findings if f.verdict == "orphan"], options)
        if not found:
            self.stdout.write("No orphans.")
        elif not options["execute"]:
            self.stdout.write("A dry run: nothing was touched. --execute destroys what is marked orphan.")
        if blind:
            raise CommandError(f"Not seen completely: {', '.join(blind)}. Nothing was concluded about them.")

    def _providers(self, only: str | None) -> dict[str, Provider]:
        enabled = registry.all()
        if only and only not in enabled:
            raise CommandError(f"No such provider: {only}. Configured: {', '.join(sorted(enabled)) or 'none'}.")
        return {only: enabled[only]} if only else dict(enabled)

    def _show(self, name: str, findings: list[Finding]) -> int:
        for finding in findings:
            machine = finding.machine
            self.stdout.write(
                f"{name:<12} {machine.id:<38} {finding.verdict:<8} {machine.label or '-':<60} {finding.why}"
            )
        return len(findings)

    def _execute(self, name: str, orphans: list[Finding], options: dict[str, Any]) -> None:
        if not orphans:
            return
        if (
            not options["force"]
            and input(f"Type 'destroy {len(orphans)}' to go on: ").strip() != f"destroy {len(orphans)}"
        ):
            raise CommandError("Nothing was destroyed.")
        for finding in orphans:
            reconcile.adopt_by_hand(name, finding.machine, clock.now(), actor=ACTOR)
        self._wait(name, [f.machine.id for f in orphans], options["wait"])

    def _wait(self, name: str, ids: list[str], seconds: float) -> None:
        end = clock.monotonic() + seconds
        while clock.monotonic() < end:
            left = Instance.objects.filter(provider=name, machine_id__in=ids).exclude(state=State.DESTROYED)
            if not left.exists():
                self.stdout.write(self.style.SUCCESS(f"{name}: {len(ids)} proven gone."))
                return
            engine.work_once()
            clock.sleep(1.0)
        raise CommandError(f"{name}: not proven gone after {seconds:.0f} s; asked for until they are.")


def findings_of(provider: Provider) -> list[Finding]:
    """What the account has under our label that no live session stands for. Rows are read after the listing."""
    machines = provider.machines()
    rows = {r.machine_id: r for r in Instance.objects.filter(provider=provider.name).exclude(machine_id="")}
    tags = {r.tag: r for r in Instance.objects.filter(provider=provider.name, machine_id="")}
    found = (_finding(m, rows.get(m.id) or tags.get(m.label or "")) for m in machines)
    return [finding for finding in found if finding]


def _finding(machine: Machine, row: Instance | None) -> Finding | None:
    if row is not None and row.state in ALIVE:
        return (
            None
            if row.session_id or row.adopted_at is None
            else Finding(machine, "orphan", "adopted, without a session")
        )
    if row is not None and row.state == State.DESTROYING:
        return Finding(machine, "leaving", f"being destroyed since {row.state_since:%H:%M:%S}, asked {row.asks} times")
    reading = tag.read(machine.label, settings.DEPLOYMENT_ID, settings.TAG_KEYS)
    if reading.ownership is Ownership.OURS:
        return Finding(machine, "orphan", "thought gone" if row else "no row in the database")
    if reading.ownership is Ownership.SUSPECT:
        return Finding(machine, "suspect", "the label is damaged or not signed by us: look at it yourself")
    return None
