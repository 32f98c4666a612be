"""Fetching from the Hugging Face hub, through the huggingface_hub package (extra: hub), which keeps its own resume."""

from pathlib import Path
from typing import TYPE_CHECKING

from myna.modeldir.catalogue import HubFile
from myna.records import DownloadError

if TYPE_CHECKING:
    from myna.modeldir.pull import Job


def fetch_file(source: HubFile, into: Path, nbytes: int) -> Path:
    """One file of a repository, below directory `into`; not yet hashed. DownloadError within seconds if offline."""
    raise DownloadError("The hub part is not here yet.")


def pull_repository(repo: str, file: str | None, job: "Job") -> Path:
    raise DownloadError("The hub part is not here yet.")
