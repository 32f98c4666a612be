"""One process runs a run: a lock file beside the journal."""

from contextlib import AbstractContextManager
from pathlib import Path

from myna.apps.flow.errors import JournalError
from myna.records import lock


def lock_path(journal: Path, run: int) -> Path:
    return journal.with_name(f"{journal.name}.run{run}.lock")


def locked(journal: Path, run: int) -> AbstractContextManager[None]:
    """Raises JournalError where another process, or another task of this one, has it."""
    return lock.locked(lock_path(journal, run), f"run {run}", JournalError)


def running(journal: Path, run: int) -> bool:
    """Whether a process has the run just now."""
    return lock.is_locked(lock_path(journal, run), JournalError)
