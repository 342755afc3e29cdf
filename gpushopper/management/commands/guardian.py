"""`manage.py guardian`: the second engine, which needs no broker."""

from __future__ import annotations

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from gpushopper import embedded
from sessions import engine


class Command(BaseCommand):
    help = "Do what has been due for a minute and nobody did. Needs the database and the providers only."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--alone", action="store_true", help="the only engine: take rows as soon as they are due")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        embedded.stop_on_signals(stop)
        engine.guardian_loop(stop, alone=options["alone"])
