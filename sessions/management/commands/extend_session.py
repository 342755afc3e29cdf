"""`manage.py extend_session`: move a deadline, beyond the hard maximum if an operator takes it upon himself."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from providers import clock
from rest.errors import Problem
from sessions import controller
from sessions.management import named
from sessions.models import Session

MOST = 744.0  # hours: a month


class Command(BaseCommand):
    help = (
        "Extend a live session. Beyond HARD_MAX_HOURS only with --override and a --reason, which is recorded. "
        "Exit code 0: extended; 1: refused, nothing has changed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("session", metavar="ID", help=f"its id, or the first {named.SHORTEST} characters or more")
        parser.add_argument("--hours", type=float, required=True, help="hours to add")
        parser.add_argument("--override", action="store_true", help="beyond the hard maximum")
        parser.add_argument("--reason", default="", help="why; needed with --override")

    def handle(self, *args: Any, **options: Any) -> None:
        hours, why = options["hours"], options["reason"].strip()
        if not 0 < hours <= MOST:
            raise CommandError(f"--hours: more than 0 and at most {MOST:g}.")
        if options["override"] != bool(why):
            raise CommandError("--override and --reason go together: the reason is recorded with it.")
        session = named.session(options["session"])
        extended = _extend(session, timedelta(hours=hours), why)
        until = extended.expires_at
        told = (
            f"runs until {until:%Y-%m-%d %H:%M:%S} UTC" if until else f"will run {hours:g} h longer once it is launched"
        )
        self.stdout.write(self.style.SUCCESS(f"{extended.pk} of {extended.consumer} {told}."))


def _extend(session: Session, span: timedelta, why: str) -> Session:
    try:
        extended = controller.extend(
            session.pk, span, clock.now(), actor="manage.py extend_session", override_reason=why
        )
    except controller.OverHardMaximum as error:
        most = settings.HARD_MAX.total_seconds() / 3600
        had = session.reservation.total_seconds() / 3600
        raise CommandError(f"It has {had:g} h; the hard maximum is {most:g} h in all. Beyond it: --override with a "
                           "--reason.") from error  # fmt: skip
    except Problem as problem:
        raise CommandError(str(problem.detail)) from problem
    if extended is None:
        raise CommandError(f"It is not live any more ({session.status}, {session.end_reason or 'at its deadline'}); "
                           "nothing can be extended.")  # fmt: skip
    return extended
