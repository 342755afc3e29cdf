"""`manage.py reconcile`: list the accounts now, and say what that shows."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from providers import registry
from sessions import reconcile


class Command(BaseCommand):
    help = "Make a complete listing of each provider's account and compare it with the rows. Destroys nothing itself."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--provider", help="only this one")

    def handle(self, *args: Any, **options: Any) -> None:
        names = [options["provider"]] if options["provider"] else sorted(registry.all())
        if not names:
            raise CommandError("No provider is configured; set VASTAI_API_KEY or TENSORDOCK_API_TOKEN.")
        blind = [name for name in names if not self._reconcile(name)]
        if blind:
            raise CommandError(f"No complete listing of: {', '.join(blind)}. Nothing was concluded from that.")

    def _reconcile(self, name: str) -> bool:
        if registry.get(name) is None:
            raise CommandError(f"No such provider: {name}. Configured: {', '.join(sorted(registry.all())) or 'none'}.")
        outcome = reconcile.reconcile(name, even_if_not_due=True)
        if outcome is None:
            self.stdout.write(f"{name}: somebody else is listing it just now.")
            return True
        if not outcome.complete:
            self.stderr.write(f"{name}: {outcome.error}")
            return False
        self.stdout.write(
            f"{name}: {outcome.listed} machines: {outcome.ours} ours, {outcome.foreign} foreign, "
            f"{outcome.suspect} with a damaged label, {len(outcome.adopted)} adopted, "
            f"{len(outcome.resurrected)} resurrected"
        )
        return True
