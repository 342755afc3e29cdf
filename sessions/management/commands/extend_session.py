"""`manage.py extend_session`: move a deadline, beyond the hard maximum if an operator takes it upon himself."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from providers import clock
from rest.errors import Problem
from sessions import controller

MOST = 744.0


class Command(BaseCommand):
    help = "Extend a live session. Beyond HARD_MAX_HOURS only with --override and a --reason, which is recorded."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("session", metavar="ID")
        parser.add_argument("--hours", type=float, required=True, help="hours to add")
        parser.add_argument("--override", action="store_true", help="beyond the hard maximum")
        parser.add_argument("--reason", default="", help="why; needed with --override")

    def handle(self, *args: Any, **options: Any) -> None:
        hours = options["hours"]
        if not 0 < hours <= MOST:
            raise CommandError(f"--hours: more than 0 and at most {MOST:g}.")
        if options["override"] and not options["reason"]:
            raise CommandError("--override is recorded with its --reason.")
        try:
            session = controller.extend(
                options["session"], timedelta(hours=hours), clock.now(), actor="manage.py extend_session",
                override_reason=options["reason"] if options["override"] else "",
            )  # fmt: skip
        except controller.OverHardMaximum as error:
            most = settings.HARD_MAX.total_seconds() / 3600
            raise CommandError(f"That would pass the hard maximum of {most:g} h; see --override.") from error
        except Problem as problem:
            raise CommandError(str(problem.detail)) from problem
        except ValidationError as error:
            raise CommandError("Not a session's id.") from error
        if session is None:
            raise CommandError("No live session by that id.")
        until = f"{session.expires_at:%Y-%m-%d %H:%M:%S} UTC" if session.expires_at else "the provider is asked"
        self.stdout.write(self.style.SUCCESS(f"{session.pk} runs until {until}."))
