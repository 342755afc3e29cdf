"""The built-in sandbox: served by `manage.py run` where no provider key is set, and found again by commands beside it.

Its world lives in the process that serves it and ends with it. The address is left in a file in the data folder, so
that `doctor`, `reconcile`, `teardown` and the others see the same accounts as the service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from providers import registry
from providers.base import Provider

FILE_NAME = "sandbox.json"


@contextmanager
def serve() -> Iterator[None]:
    """The stand-ins, served in this process, and the adapters talking to them."""
    from providers.sandbox.server import SandboxServer
    from providers.sandbox.world import World

    server = SandboxServer(World())
    server.start()
    before = registry.all()
    registry.use(registry.load(server.environment()).providers)
    try:
        with _told(settings.DATA_DIR / FILE_NAME, server.environment()):
            yield
    finally:
        registry.use(before)
        server.stop()


@contextmanager
def _told(path: Path, environment: Mapping[str, str]) -> Iterator[None]:
    half = path.with_suffix(".new")
    half.write_text(json.dumps({"pid": os.getpid(), "environment": environment}))
    half.replace(path)  # Whoever reads meanwhile gets the whole file or none.
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def found(data_dir: Path) -> dict[str, Provider]:
    """Adapters for the sandbox of the service that runs on this data folder; {} if none does."""
    try:
        told = json.loads((data_dir / FILE_NAME).read_text())
        # A service that was killed leaves its file behind, and perhaps its port to somebody else.
        return registry.load(told["environment"]).providers if _lives(told["pid"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It lives, as somebody else.
        return True
    return True
