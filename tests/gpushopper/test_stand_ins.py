"""The built-in sandbox is found by commands beside it, and only while it lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpushopper import stand_ins
from providers import registry


def test_while_it_is_served_others_find_it_and_afterwards_not(settings: object, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path  # type: ignore[attr-defined]
    with stand_ins.serve():
        theirs = stand_ins.found(tmp_path)
        assert sorted(theirs) == sorted(registry.all()) == ["tensordock", "vastai"]
        assert theirs["vastai"].machines() == []
    assert stand_ins.found(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_service_leads_nowhere(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told = {"pid": gone.pid, "environment": {"VASTAI_API_KEY": "sandbox-vastai-key"}}
    (tmp_path / stand_ins.FILE_NAME).write_text(json.dumps(told))
    assert stand_ins.found(tmp_path) == {}
    (tmp_path / stand_ins.FILE_NAME).write_text(json.dumps({**told, "pid": os.getpid()}))
    assert list(stand_ins.found(tmp_path)) == ["vastai"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "environment": {}}', '{"pid": 1}'])
def test_a_damaged_file_leads_nowhere(text: str, tmp_path: Path) -> None:
    (tmp_path / stand_ins.FILE_NAME).write_text(text)
    assert stand_ins.found(tmp_path) == {}
