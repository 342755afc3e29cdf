"""`python -m tests.bench.part NAME`: one part of the bench, over a fresh SQLite file as the embedded service has it."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path


def main(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="gs-bench-") as folder:
        for variable in [v for v in os.environ if v.startswith(("VASTAI_", "TENSORDOCK_", "DATABASE_", "CELERY_"))]:
            del os.environ[variable]
        os.environ |= {"DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "gpushopper.settings", "LOG_LEVEL": "ERROR"}
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", interactive=False, verbosity=0)
        figures = importlib.import_module(f"tests.bench.{name}").run()
        sys.stdout.write(json.dumps({figure.name: figure.told() for figure in figures}) + "\n")
        for left in Path(folder).glob("*.db-*"):
            left.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
