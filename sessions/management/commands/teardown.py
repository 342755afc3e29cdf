"""`manage.py teardown`: end sessions now, with or without the rest of the service."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from providers import clock
from rest.admin import counted
from sessions import controller
from sessions.lifecycle import LIVE, OVER, Reason, State
from sessions.management import named, proof
from sessions.models import Instance, Session

ACTOR = "manage.py teardown"
PHRASE = "end them"


class Command(BaseCommand):
    help = (
        "End sessions by an operator's wish: named ones, or all, with the machines that were adopted. Works with the "
        "service up or down. Returns when everything is proven gone, or after --wait seconds; what is left is asked "
        "for until it is gone, as soon as the service runs. "
        f"Exit code 0: proven gone; 1: refused, nothing was ended; {proof.STILL_THERE}: not proven gone in time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "sessions",
            nargs="*",
            metavar="SESSION",
            help=f"their ids, or the first {named.SHORTEST} characters or more of each",
        )
        parser.add_argument("--all", action="store_true", help="every session that is not over, and adopted machines")
        parser.add_argument("--provider", help="only there (with --all)")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--wait", type=float, default=600, metavar="SECONDS",
                            help="for the proof; 0: only record the wish (default 600)")  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        _checked(options)
        sessions = _all(options["provider"]) if options["all"] else _named(options["sessions"])
        machines = _adopted(options["provider"]) if options["all"] else []
        leaving = [session for session in sessions if session.status not in OVER]
        self._confirm([s for s in leaving if s.status in LIVE], machines, options)
        for session in sessions:
            self._end(session)
        for row in machines:
            controller.wish_end_of_instance(row, Reason.TEARDOWN, clock.now(), actor=ACTOR)
            self.stdout.write(f"machine {row.machine_id} at {row.provider} (adopted): ending")
        if not leaving and not machines:
            self.stdout.write("Nothing is left to end.")
            return
        self._wait([s.pk for s in leaving], [r.pk for r in machines], options["wait"])

    def _confirm(self, live: list[Session], machines: list[Instance], options: dict[str, Any]) -> None:
        if options["yes"] or not (live or machines):
            return
        self.stdout.write(f"{counted(len(live), 'live session')} and {counted(len(machines), 'adopted machine')} will "
                          "be destroyed, with everything on their disks:")  # fmt: skip
        for session in live:
            self.stdout.write(f"  {session.pk}  {session.consumer}  {session.gpu_count} × {session.gpu_type} at "
                              f"{session.provider}, {session.status}")  # fmt: skip
        for row in machines:
            self.stdout.write(f"  machine {row.machine_id} at {row.provider}, adopted, kept until "
                              f"{row.deadline:%Y-%m-%d %H:%M} UTC")  # fmt: skip
        if proof.answer(f"Type '{PHRASE}' to go on: ") != PHRASE:
            raise CommandError("Nothing was ended. (--yes does not ask.)")

    def _end(self, session: Session) -> None:
        wished = controller.wish_end(session.pk, Reason.TEARDOWN, clock.now(), actor=ACTOR)
        session.refresh_from_db(fields=["status", "end_reason"])
        if wished:
            word = "ending"
        elif session.status in OVER:
            word = f"over already: {session.status} ({session.end_reason})"
        else:
            word = f"was ending already ({session.end_reason})"
        self.stdout.write(f"{session.pk}  {session.consumer}  {session.gpu_type} at {session.provider}: {word}")

    def _wait(self, sessions: list[UUID], machines: list[UUID], seconds: float) -> None:
        if seconds <= 0:
            self.stdout.write("The wish is recorded; the service does the rest.")
            return
        try:
            left = proof.until_gone(sessions, machines, seconds, self.stdout.write)
        except KeyboardInterrupt:
            raise CommandError("No longer waiting. The wish stays: the service goes on until all is proven gone.",
                               returncode=proof.STILL_THERE) from None  # fmt: skip
        if left:
            raise CommandError(
                "\n  ".join([f"Not proven gone after {seconds:.0f} s, and maybe billing:", *left])
                + "\nThe service asks for them until they are gone; if it is down, start it or run this again.",
                returncode=proof.STILL_THERE,
            )
        self.stdout.write(self.style.SUCCESS("Everything is proven gone."))


def _checked(options: dict[str, Any]) -> None:
    if bool(options["sessions"]) == bool(options["all"]):
        raise CommandError("Give session ids, or --all.")
    if options["provider"] and not options["all"]:
        raise CommandError("--provider goes with --all.")
    if not 0 <= options["wait"] <= 86400:
        raise CommandError("--wait: 0 to 86400 seconds.")
    known = {*Session.objects.order_by().values_list("provider", flat=True).distinct(),
             *Instance.objects.order_by().values_list("provider", flat=True).distinct()}  # fmt: skip
    if options["provider"] and options["provider"] not in known:
        raise CommandError(f"Nothing was ever rented at {options['provider']!r}; "
                           f"at: {', '.join(sorted(known)) or 'no provider'}.")  # fmt: skip


def _named(ids: list[str]) -> list[Session]:
    try:
        found = [named.session(text) for text in ids]
    except CommandError as error:
        raise CommandError(f"{error}\nNothing was ended.") from error
    return list({session.pk: session for session in found}.values())


def _all(provider: str | None) -> list[Session]:
    """Also those that may have a machine there from an earlier attempt."""
    alive = Session.objects.exclude(status__in=OVER).order_by("created_at")
    if not provider:
        return list(alive)
    there = Instance.objects.filter(provider=provider).exclude(state=State.DESTROYED).values("session")
    return list(alive.filter(provider=provider) | alive.filter(pk__in=there))


def _adopted(provider: str | None) -> list[Instance]:
    """Machines that no session stands for."""
    rows = Instance.objects.filter(session=None, state=State.RUNNING)
    return list(rows.filter(provider=provider) if provider else rows)
