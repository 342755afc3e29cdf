from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpushopper import checks, keyfile


def test_the_secrets_are_made_once(tmp_path: Path) -> None:
    first = keyfile.load_or_make(tmp_path)
    assert set(first) == set(keyfile.MADE)
    assert keyfile.load_or_make(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["keys.env"], "nothing temporary is left"


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    keyfile.load_or_make(tmp_path)
    path = tmp_path / keyfile.FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.is_private(path)
    path.chmod(0o640)
    assert not keyfile.is_private(path)


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from gpushopper import keyfile\n" \
              "sys.stdin.readline(); print(sorted(keyfile.load_or_make(Path(sys.argv[1])).items()))"  # fmt: skip
    started = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path / "data"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True, cwd=Path(keyfile.__file__).parents[1])
        for _ in range(6)
    ]  # fmt: skip
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = {process.communicate(timeout=60)[0] for process in started}
    assert len(told) == 1
    assert "TAG_KEY" in told.pop()


def test_a_damaged_file_is_not_mended_by_new_keys(tmp_path: Path) -> None:
    (tmp_path / keyfile.FILE_NAME).write_text("SECRET_KEY=x\nTAG_KEY=\n")
    with pytest.raises(keyfile.DamagedKeyFile, match="lacks FIELD_ENCRYPTION_KEYS, TAG_KEY, DEPLOYMENT_ID"):
        keyfile.load_or_make(tmp_path)
    assert (tmp_path / keyfile.FILE_NAME).read_text() == "SECRET_KEY=x\nTAG_KEY=\n"


def test_a_key_file_that_others_can_read_is_an_error(tmp_path: Path, settings: object) -> None:
    settings.DATA_DIR = tmp_path  # type: ignore[attr-defined]
    assert checks.the_key_file_is_private() == []
    keyfile.load_or_make(tmp_path)
    assert checks.the_key_file_is_private() == []
    (tmp_path / keyfile.FILE_NAME).chmod(0o644)
    assert [found.id for found in checks.the_key_file_is_private()] == ["gpushopper.E005"]
