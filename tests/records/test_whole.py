"""Small files are whole, whatever fails and whoever else writes."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from myna.records import DataError
from myna.records.whole import add, write_whole


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "names.json"
    write_whole(path, b"before", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"names\.json cannot be written: No space left on device"):
        write_whole(path, b"after", 0o600)
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]


def test_what_many_add_at_once_is_all_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.json"
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda n: add(path, f"judge {n}", n), range(64))]
    assert json.loads(path.read_text()) == {f"judge {n}": n for n in range(64)}


@pytest.mark.parametrize("text", ['{"a":', "[1]", "\x00"])
def test_a_damaged_file_is_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(DataError, match="Move it away"):
        add(path, "a", 1)
    assert path.read_text() == text
