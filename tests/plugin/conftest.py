"""The example is a stranger's package: it is tested as one, with its own settings, rather than collected with ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"

collect_ignore = ["example"]


@pytest.fixture(scope="session")
def attic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, since what is built and tested leaves files behind."""
    copy = tmp_path_factory.mktemp("stranger") / "attic"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    return copy
