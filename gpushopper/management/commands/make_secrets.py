"""`manage.py make_secrets`: a set of secrets for `.env`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from gpushopper import keyfile


class Command(BaseCommand):
    help = "Print fresh SECRET_KEY, FIELD_ENCRYPTION_KEYS, TAG_KEY and DEPLOYMENT_ID for .env. Keep them safe."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        for name, make in keyfile.MADE.items():
            self.stdout.write(f"{name}={make()}")
