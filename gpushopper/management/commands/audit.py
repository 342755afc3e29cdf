"""`manage.py audit`: an independent check of every promise, which changes nothing."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from gpushopper import auditor
from gpushopper.auditor import ODD, WELL, WRONG, Finding
from providers import clock

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "List every account, compare it with the database (read-only) and check the promises: deadlines, creates "
        "without an outcome, overdue ends, machines without a row, the age of the last listing, heartbeats. Changes "
        "nothing; read-only provider keys will do. Exit code 0: nothing is wrong (warnings may be there); 1: the "
        "service is late, blind or wrong. Each wrong thing is also logged as an error."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
        parser.add_argument("--every", type=float, metavar="SECONDS", help="go on, and look again each so many seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        every = options["every"]
        if every is not None and not 1 <= every <= 86400:
            raise CommandError("--every: 1 to 86400 seconds.")
        wrong = self._audit(options["json"])
        while every is not None:
            clock.sleep(every)
            close_old_connections()
            wrong = self._audit(options["json"])
        if wrong:
            raise CommandError(f"{wrong} {'thing is' if wrong == 1 else 'things are'} late, blind or wrong.")

    def _audit(self, as_json: bool) -> int:
        now = clock.now()
        findings = auditor.audit(now)
        wrong = [finding for finding in findings if finding.verdict == WRONG]
        if as_json:
            told = {"at": f"{now:%Y-%m-%dT%H:%M:%SZ}", "ok": not wrong, "findings": [asdict(f) for f in findings]}
            self.stdout.write(json.dumps(told))
        else:
            self._table(findings)
        for finding in wrong:
            log.error("AUDIT %s: %s %s", finding.subject, finding.what, finding.advice)
        return len(wrong)

    def _table(self, findings: list[Finding]) -> None:
        colour = {WELL: self.style.SUCCESS, ODD: self.style.WARNING, WRONG: self.style.ERROR}
        width = max((len(finding.subject) for finding in findings), default=0)
        for finding in findings:
            self.stdout.write(f"{colour[finding.verdict](f'{finding.verdict:<6}')} {finding.subject:<{width}}  "
                              f"{finding.what}")  # fmt: skip
            if finding.advice:
                self.stdout.write(f"{'':<6} {'':<{width}}  {finding.advice}")
