"""`manage.py guardian`: the second engine, which needs no broker."""

from __future__ import annotations

import logging
import threading
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from gpushopper import embedded
from inventory import refresh
from providers import clock
from sessions import engine

log = logging.getLogger(__name__)

MENU_LOOK = 5.0  # seconds


class Command(BaseCommand):
    help = "Do what has been due for a minute and nobody did. Needs the database and the providers only."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--alone", action="store_true", help="the only engine: take rows as soon as they are due")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        embedded.stop_on_signals(stop)
        after = timedelta(0) if options["alone"] else engine.GUARDIAN_AFTER
        threading.Thread(target=keep_the_menu, args=(stop, after), name="menu", daemon=True).start()
        engine.guardian_loop(stop, alone=options["alone"])


def keep_the_menu(stop: threading.Event, after: timedelta) -> None:
    """Read the menus that nobody has read for `after`. Beside the rounds: no menu is worth a late destroy."""
    while not stop.wait(MENU_LOOK):
        close_old_connections()
        try:
            for provider in refresh.due(clock.now() - after):
                refresh.refresh(provider)
        except Exception:  # A database that restarts, most likely: the next look tries again.
            log.exception("The menus could not be looked after; the next look follows in %d s.", MENU_LOOK)
