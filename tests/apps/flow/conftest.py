"""Journals in memory where there is a file system for that: a kill -9 loses nothing that the system has, and waiting for a disk took
most of the time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from myna.apps.flow import Journal

MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder / "flows.sqlite")
