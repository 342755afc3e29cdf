"""`manage.py sandbox`: the stand-ins for both providers, as a server of their own."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from providers.sandbox.server import main


class Command(BaseCommand):
    help = "Serve stand-ins for Vast.ai and TensorDock on 127.0.0.1 (see docs/sandbox.md)."
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        main(argv[2:])

    def handle(self, *args: Any, **options: Any) -> None:
        main([])
