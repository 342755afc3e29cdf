"""`python -m tests.bench.costs_on_postgresql`: the figures of `tests.bench.costs` over the database of DATABASE_URL."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from tests.bench import costs

    call_command("migrate", interactive=False, verbosity=0)
    sys.stdout.write(json.dumps([asdict(figure) for figure in costs.here()]) + "\n")


if __name__ == "__main__":
    main()
