"""`manage.py teardown`: end sessions now, with or without the rest of the service."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from providers import clock
from sessions import controller, engine
from sessions.lifecycle import LIVE, OVER, Reason
from sessions.models import Instance, Session

ACTOR = "manage.py teardown"


class Command(BaseCommand):
    help = (
        "End sessions by an operator's wish: named ones, or all. Returns when everything is proven gone, or "
        "after --wait seconds; what is left goes on by itself as soon as the service runs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("sessions", nargs="*", metavar="SESSION", help="ids of sessions")
        parser.add_argument(
            "--all", action="store_true", help="every session that is not over, and every adopted machine"
        )
        parser.add_argument("--provider", help="only there (with --all)")
        parser.add_argument("--wait", type=float, default=600, help="seconds; 0: only record the wish (default 600)")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        sessions = self._chosen(options)
        machines = self._machines(sessions, options)
        if not sessions and not machines:
            self.stdout.write("Nothing to end.")
            return
        self._confirm(sessions, machines, options)
        now = clock.now()
        for session in sessions:
            controller.wish_end(session.pk, Reason.TEARDOWN, now, actor=ACTOR)
            self.stdout.write(f"{session.pk}  {session.consumer}  {session.gpu_type} at {session.provider}: ending")
        for row in machines:
            controller.wish_end_of_instance(row, Reason.TEARDOWN, now, actor=ACTOR)
        self._work(sessions, machines, options["wait"])

    def _chosen(self, options: dict[str, Any]) -> list[Session]:
        if bool(options["sessions"]) == bool(options["all"]):
            raise CommandError("Give session ids, or --all.")
        if options["all"]:
            chosen = Session.objects.exclude(status__in=OVER)
            return list(chosen.filter(provider=options["provider"]) if options["provider"] else chosen)
        try:
            found = {str(s.pk): s for s in Session.objects.filter(pk__in=options["sessions"])}
        except ValidationError as error:
            raise CommandError(f"Not a session's id: {'; '.join(error.messages)}") from error
        if missing := [pk for pk in options["sessions"] if pk.lower() not in found]:
            raise CommandError(f"No such session: {', '.join(missing)}")
        return list(found.values())

    def _machines(self, sessions: list[Session], options: dict[str, Any]) -> list[Instance]:
        """Adopted machines that no session stands for."""
        if not options["all"]:
            return []
        rows = Instance.objects.filter(session=None, state="running")
        return list(rows.filter(provider=options["provider"]) if options["provider"] else rows)

    def _confirm(self, sessions: list[Session], machines: list[Instance], options: dict[str, Any]) -> None:
        live = [s for s in sessions if s.status in LIVE]
        if options["yes"] or (not live and not machines):
            return
        self.stdout.write(f"{len(live)} live sessions and {len(machines)} adopted machines will be destroyed.")
        if input("Type 'end them' to go on: ").strip() != "end them":
            raise CommandError("Nothing was ended.")

    def _work(self, sessions: list[Session], machines: list[Instance], seconds: float) -> None:
        """Do the work here too: the service may be down, and if it is up, claims keep us apart."""
        if seconds <= 0:
            return
        pks, rows = [s.pk for s in sessions], [r.pk for r in machines]
        end = clock.monotonic() + seconds
        while clock.monotonic() < end:
            left = Session.objects.filter(pk__in=pks).exclude(status__in=OVER).count()
            left += Instance.objects.filter(pk__in=rows).exclude(state="destroyed").count()
            if not left:
                self.stdout.write(self.style.SUCCESS("Everything is proven gone."))
                return
            engine.work_once()
            clock.sleep(1.0)
        raise CommandError(f"{left} are not proven gone after {seconds:.0f} s; they are asked for until they are.")
