"""`manage.py create_consumer NAME [--operator] [--json]`: a consumer and a key for it."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from gpushopper.models import ApiKey, Consumer, consumer_name, make_key


class Command(BaseCommand):
    help = "Make a consumer, if it is not there yet, and a new API key for it; the key is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--operator", action="store_true", help="The key may see and do everything.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            consumer_name(options["name"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        role = ApiKey.Role.OPERATOR if options["operator"] else ApiKey.Role.CONSUMER
        try:
            consumer, _ = Consumer.objects.get_or_create(name=options["name"])
            _, text = make_key(consumer, role)
        except DatabaseError as error:
            raise CommandError(
                f"The database does not take it ({type(error).__name__}). Start the service once, or run "
                "`manage.py migrate`; then try again."
            ) from error
        if options["json"]:
            self.stdout.write(json.dumps({"consumer_id": consumer.name, "role": role, "api_key": text}))
            return
        self.stdout.write(f"Consumer {consumer.name}, role {role}. The key, shown only now:\n\n  {text}\n")
