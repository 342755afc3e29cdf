"""Programs as a stranger starts them: over the installed service, and with nothing of our tests or keys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*command: str | Path, at: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """With an environment of its own: neither our settings nor a key of ours."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [*map(str, command)], cwd=at, env={**plain, **env}, capture_output=True, text=True, timeout=240, check=False
    )


def pytest_there(*arguments: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, at=at)
