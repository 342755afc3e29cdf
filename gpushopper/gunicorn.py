"""How the web application is served in production: `gunicorn -c python:gpushopper.gunicorn gpushopper.wsgi`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

bind = f"{os.environ.get('SERVER_HOST') or '127.0.0.1'}:{os.environ.get('SERVER_PORT') or '8080'}"
worker_class = "gthread"  # A request may wait for a session to settle: a thread costs less than a process.
workers = 2
threads = 8
# `Prefer: wait` answers within 120 s; a stop lets those answers out.
timeout = 150
graceful_timeout = 130
keepalive = 5
control_socket_disable = True  # Processes are ended by their container, and its file system is read-only.

# Each web process keeps its own request figures; /metrics adds them up from files in this folder.
_figures = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def on_starting(server: Any) -> None:
    """Figures of processes that are long gone are not ours."""
    if _figures:
        shutil.rmtree(_figures, ignore_errors=True)
        Path(_figures).mkdir(parents=True)


def child_exit(server: Any, worker: Any) -> None:
    if _figures:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
