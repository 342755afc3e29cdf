"""`manage.py run`: the whole service in one process."""

from __future__ import annotations

import logging
import os
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gpushopper import embedded

log = logging.getLogger(__name__)

SERVING = """\
GPU Shopper is at {url}/{sandbox}
  API      {url}/api/v1/docs
  Admin    {url}/admin/        a login: python manage.py createsuperuser
  A key    python manage.py create_consumer NAME
  Stop     Ctrl-C; every session goes on, and is taken up again at the next start
"""
IN_THE_SANDBOX = "  on its sandbox: nothing real is rented, nothing costs money"


class Command(BaseCommand):
    help = "Web, worker, beat and guardian in one process, with SQLite and no broker to install."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=None, help="default: SERVER_HOST, 127.0.0.1")
        parser.add_argument("--port", type=int, default=None, help="default: SERVER_PORT, 8080")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EMBEDDED:
            raise CommandError(
                "A broker is configured (CELERY_BROKER_URL or REDIS_URL), so web, workers and beat are processes "
                "of their own: see docker-compose.yml. Unset it to run everything in this process."
            )
        settings.SERVER_HOST = options["host"] or settings.SERVER_HOST
        if options["port"] is not None:
            settings.SERVER_PORT = options["port"]
        stop = threading.Event()
        embedded.stop_on_signals(stop)
        try:
            all_ended = embedded.serve(stop, self._announce)
        except embedded.CannotStart as error:
            raise CommandError(f"The service can't start: {error}.") from error
        if not all_ended:
            self._leave()

    def _leave(self) -> None:
        """Python would wait for each thread's end, and a provider that does not answer may take minutes."""
        log.warning("stopped while a provider's answer was out; its row is taken up at the next start")
        logging.shutdown()
        self.stdout.flush()
        os._exit(0)

    def _announce(self, web: embedded.Web) -> None:
        self.stdout.write(SERVING.format(url=web.url, sandbox=IN_THE_SANDBOX if settings.SANDBOX else ""))
        self.stdout.flush()
