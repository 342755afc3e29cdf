"""`manage.py reconcile`: list the accounts now, and say what that shows."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from providers import registry
from providers.tag import Ownership
from rest.admin import counted
from sessions import reconcile
from sessions.management import proof
from sessions.models import Account, Stranger


class Command(BaseCommand):
    help = (
        "Make a complete listing of each provider's account and compare it with the rows. Destroys nothing itself; "
        "what it adopts or finds due is acted upon by the service. "
        f"Exit code 0: every account was seen; 1: used wrongly; {proof.NOT_SEEN}: an account could not be seen."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--provider", help="only this one")

    def handle(self, *args: Any, **options: Any) -> None:
        enabled = sorted(registry.all())
        if not enabled:
            raise proof.no_provider()
        only = options["provider"]
        if only and only not in enabled:
            raise CommandError(f"No such provider: {only}. Configured: {', '.join(enabled)}.")
        blind = [name for name in ([only] if only else enabled) if not self._reconcile(name)]
        if blind:
            raise CommandError(f"Not seen completely: {', '.join(blind)}. Nothing was concluded from that; it is tried "
                               "again by itself while the service runs.", returncode=proof.NOT_SEEN)  # fmt: skip

    def _reconcile(self, name: str) -> bool:
        outcome = reconcile.reconcile(name, even_if_not_due=True)
        if outcome is None:
            self.stdout.write(f"{name}: the service is listing it just now; look at it again in a few seconds.")
            return True
        if not outcome.complete:
            self.stderr.write(f"{name}: {outcome.error}")
            return False
        # Those that ORPHAN_GRACE_PERIOD has not passed for; the listing has left no others among the strangers.
        unknown = Stranger.objects.filter(provider=name, ownership=Ownership.OURS).count()
        self.stdout.write(
            f"{name}: {counted(outcome.listed, 'machine')}: {outcome.ours} ours, "
            f"{unknown} with our label and no row yet, {outcome.foreign} foreign, "
            f"{outcome.suspect} with a damaged label; {len(outcome.adopted)} adopted, "
            f"{len(outcome.resurrected)} thought gone and listed again"
        )
        brake = Account.objects.get(provider=name).brake
        if brake:
            self.stdout.write(self.style.WARNING(
                f"{name}: {brake}. Look at the adopted machines in the admin, then release the brake there."
            ))  # fmt: skip
        return True
