"""`manage.py cleanup_orphans`: machines with our label that no live session stands for."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from providers import clock, registry, tag
from providers.base import Machine, Provider, ProviderError
from providers.tag import Ownership
from rest.admin import counted
from sessions import reconcile
from sessions.lifecycle import ALIVE, State
from sessions.management import proof
from sessions.models import Account, Instance, Stranger
from sessions.next_step import distance

ACTOR = "manage.py cleanup_orphans"
ORPHAN, LEAVING, SUSPECT = "orphan", "leaving", "suspect"
MAYBE_IN_USE = (
    "That is what a lost or restored database looks like, and then these may be people's live machines. Each ends by "
    "itself at the deadline in its label."
)


@dataclass(frozen=True, slots=True)
class Finding:
    machine: Machine
    verdict: str
    why: str
    rowless: bool = False  # the database has never heard of it


@dataclass(frozen=True, slots=True)
class Survey:
    """What one complete listing of an account shows."""

    findings: Sequence[Finding]
    listed: int

    @property
    def orphans(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == ORPHAN]


class Command(BaseCommand):
    help = (
        "Compare each provider's account with the database and show machines of ours that nobody wants. A dry run "
        "unless --execute. A machine of a live session is never among them, nor is anything without our signed label. "
        "Works with the service up or down. "
        f"Exit code 0: no orphans, every account was seen; 1: refused, nothing was destroyed; {proof.STILL_THERE}: "
        f"orphans are left; {proof.NOT_SEEN}: an account could not be seen completely."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--execute", action="store_true", help="destroy them, and wait for the proof")
        parser.add_argument("--force", action="store_true", help="do not ask, and do not wait out ORPHAN_GRACE_PERIOD")
        parser.add_argument("--provider", help="only there")
        parser.add_argument("--wait", type=float, default=600, metavar="SECONDS", help="for the proof (default 600)")

    def handle(self, *args: Any, **options: Any) -> None:
        blind: list[str] = []
        left = 0
        for name, provider in _providers(options["provider"]).items():
            survey = self._survey(name, provider)
            if survey is None:
                blind.append(name)
                continue
            left += len(survey.orphans)
            if options["execute"] and survey.orphans:
                left -= self._execute(name, provider, survey.orphans, options)
        self._conclude(left, blind, options["execute"])

    def _survey(self, name: str, provider: Provider) -> Survey | None:
        try:
            survey = survey_of(provider)
        except ProviderError as error:
            self.stderr.write(f"{name}: no complete listing: {error}")
            return None
        for finding in survey.findings:
            machine = finding.machine
            self.stdout.write(f"{name:<12} {machine.id:<20} {finding.verdict:<8} {machine.label or '-'}  {finding.why}")
        others = survey.listed - len(survey.findings)
        orphans = counted(len(survey.orphans), "orphan")
        self.stdout.write(f"{name}: {counted(survey.listed, 'machine')} listed: {orphans}, {others} with a live "
                          "session or not ours.")  # fmt: skip
        if survey.orphans and _is_braked(name):
            why = "the brake is on, since machines of ours had no session."
            self.stdout.write(self.style.WARNING(f"{name}: {why} {MAYBE_IN_USE}"))
        return survey

    def _conclude(self, left: int, blind: list[str], execute: bool) -> None:
        if blind:
            more = f" Left elsewhere: {counted(left, 'orphan')}." if left else ""
            raise CommandError(f"Not seen completely: {', '.join(blind)}. Nothing was concluded about it.{more} "
                               "Try again when it answers; `manage.py doctor` says more.",
                               returncode=proof.NOT_SEEN)  # fmt: skip
        if left and not execute:
            raise CommandError(f"{counted(left, 'orphan')}. A dry run: nothing was touched; --execute destroys.",
                               returncode=proof.STILL_THERE)  # fmt: skip
        if left:
            raise CommandError(f"Not proven gone, and maybe billing: {counted(left, 'orphan')}. The service goes on "
                               "asking until nothing is left; if it is down, start it or run this again.",
                               returncode=proof.STILL_THERE)  # fmt: skip
        self.stdout.write(self.style.SUCCESS("No orphans are left." if execute else "No orphans."))

    def _execute(self, name: str, provider: Provider, orphans: list[Finding], options: dict[str, Any]) -> int:
        """Returns how many are proven gone, or turned out to be none."""
        if not options["force"]:
            self._confirm(name, orphans)
            _wait_out_the_grace(name, orphans, self.stdout.write)
        # Minutes may have gone by: what is destroyed is what a fresh listing and fresh rows still call an orphan.
        try:
            still = {finding.machine.id: finding for finding in survey_of(provider).orphans}
        except ProviderError as error:
            self.stderr.write(f"{name}: no complete listing any more: {error}. Nothing was destroyed there.")
            return 0
        chosen = [still[f.machine.id] for f in orphans if f.machine.id in still]
        for finding in chosen:
            self._adopt(name, finding)
        rows = Instance.objects.filter(provider=name, machine_id__in=[f.machine.id for f in chosen])
        labels = Instance.objects.filter(provider=name, machine_id="", tag__in=[f.machine.label for f in chosen])
        pks = [*rows.values_list("pk", flat=True), *labels.values_list("pk", flat=True)]
        try:
            unproven = proof.until_gone([], pks, options["wait"], self.stdout.write)
        except KeyboardInterrupt:
            raise CommandError("No longer waiting. The wish stays: the service goes on until all is proven gone.",
                               returncode=proof.STILL_THERE) from None  # fmt: skip
        for sentence in unproven:
            self.stderr.write(f"not proven gone: {sentence}")
        return len(orphans) - len(unproven)

    def _adopt(self, name: str, finding: Finding) -> None:
        try:
            reconcile.adopt_by_hand(name, finding.machine, clock.now(), actor=ACTOR)
        except ValueError as error:  # The service was quicker, and knows better.
            self.stdout.write(f"{name}: machine {finding.machine.id} is left alone: {error}.")

    def _confirm(self, name: str, orphans: list[Finding]) -> None:
        rowless = sum(finding.rowless for finding in orphans)
        if rowless > reconcile.AMNESIA_ABOVE and not _is_braked(name):  # With the brake on it was said above.
            self.stdout.write(self.style.WARNING(f"{rowless} of them have no row at all. {MAYBE_IN_USE}"))
        phrase = f"destroy {len(orphans)}"
        if proof.answer(f"{name}: type '{phrase}' to go on: ") != phrase:
            raise CommandError("Nothing was destroyed. (--force does not ask.)")


def _is_braked(name: str) -> bool:
    return Account.objects.filter(provider=name).exclude(brake="").exists()


def _providers(only: str | None) -> dict[str, Provider]:
    enabled = registry.all()
    if not enabled:
        raise proof.no_provider()
    if only and only not in enabled:
        raise CommandError(f"No such provider: {only}. Configured: {', '.join(sorted(enabled))}.")
    return {only: enabled[only]} if only else enabled


def survey_of(provider: Provider) -> Survey:
    """What the account has under our label that no live session stands for. Rows are read after the listing.

    Raises ProviderError: nothing is known then.
    """
    began = clock.now()
    listed = provider.machines()
    rows = list(Instance.objects.filter(provider=provider.name))
    by_id = {row.machine_id: row for row in rows if row.machine_id}
    by_tag = {row.tag: row for row in rows if not row.machine_id}
    found = (_finding(m, by_id.get(m.id) or by_tag.get(m.label or ""), began) for m in listed)
    return Survey([finding for finding in found if finding], len(listed))


def _finding(machine: Machine, row: Instance | None, began: datetime) -> Finding | None:
    if row is not None and row.state in ALIVE:
        kept = row.session_id is None and row.adopted_at is not None
        until = f"adopted without a session, kept until {row.deadline:%Y-%m-%d %H:%M} UTC"
        return Finding(machine, ORPHAN, until) if kept else None
    if row is not None and row.state == State.DESTROYING:
        since = distance(row.state_since, clock.now())
        return Finding(machine, LEAVING, f"on its way out, wished {since}, asked {counted(row.asks, 'time')}")
    if row is not None and row.ended_at is not None and row.ended_at >= began:
        return None  # Its absence was proven while we listed.
    reading = tag.read(machine.label, settings.DEPLOYMENT_ID, settings.TAG_KEYS)
    if reading.ownership is Ownership.OURS and reading.deadline:
        known = "proven gone, and listed again" if row else "no row in the database"
        return Finding(machine, ORPHAN, f"{known}; its label says: gone by {reading.deadline:%Y-%m-%d %H:%M} UTC",
                       rowless=row is None)  # fmt: skip
    if reading.ownership is Ownership.SUSPECT:
        return Finding(machine, SUSPECT, "the label is damaged or not signed by us: never touched; look at it yourself")
    return None


def _wait_out_the_grace(name: str, orphans: list[Finding], say: Any) -> None:
    """A machine without a row is believed to be one after ORPHAN_GRACE_PERIOD; the service may have waited already."""
    now = clock.now()
    met = dict(Stranger.objects.filter(provider=name).values_list("machine_id", "first_seen_at"))
    firsts = [met.get(finding.machine.id, now) for finding in orphans if finding.rowless]
    if not firsts:
        return
    left = (max(firsts) + settings.ORPHAN_GRACE_PERIOD - now).total_seconds()
    if left > 0:
        say(
            f"{name}: waiting {left:.0f} s (ORPHAN_GRACE_PERIOD), then it is listed once more. (--force does not wait.)"
        )
        clock.sleep(left)
