"""Fetching from the Hugging Face hub, through the huggingface_hub package (extra: hub), which keeps its own resume.

HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean everywhere. Only files that can be data are fetched.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from myna.modeldir.catalogue import HubFile
from myna.modeldir.files import NO_PICKLE, is_pickle, model_files
from myna.modeldir.packages import check_space
from myna.modeldir.progress import Advance, progress
from myna.modeldir.publish import sha256
from myna.records import DownloadError, ModelDirError

PATIENCE = 5.0  # seconds for a first sign of life; name resolution counts
_KEEP = 64 << 10  # what a small file may take on the disk beyond its size


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch_repository` brought: file name -> where it lies, and what the hub says of it."""

    files: dict[str, Path]
    commit: str
    licence: str | None


def fetch_file(source: HubFile, into: Path, nbytes: int) -> Path:
    """One file of a repository, below directory `into`; not yet hashed. Resumes. DownloadError, within seconds when
    there is no network."""
    hub = _package()
    _knock(f"{_endpoint()}/{source.repo}/resolve/{source.revision}/{source.file}")
    check_space(into, nbytes, source.file)
    with progress(f"Downloading {source.file}", nbytes) as advance:
        return _download(hub, source.repo, source.file, source.revision, into, advance)


def fetch_repository(repo: str, file: str | None, into: Path) -> Fetched:
    """The files of a repository that make a model directory, or its one GGUF file (`file` chooses among several).

    Raises DownloadError (network, space, hash), ModelDirError (only pickles, nothing usable, or several GGUF files).
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise DownloadError(f"hub:{repo[:200]} is not hub:OWNER/REPO, as in hub:Qwen/Qwen3-0.6B.")
    hub = _package()
    _knock(f"{_endpoint()}/api/models/{repo}")
    with _hub_errors(repo):
        info = hub.HfApi(endpoint=_endpoint()).model_info(repo, files_metadata=True, timeout=2 * PATIENCE)
    siblings = {s.rfilename: s for s in info.siblings or []}
    names = choose(repo, list(siblings), file)
    total = sum(siblings[name].size or 0 for name in names)
    check_space(into, total + _KEEP * len(names), repo)
    files = {}
    with progress(f"Downloading {repo}", total) as advance:
        for name in names:
            files[name] = _download(hub, repo, name, info.sha or "main", into, advance)
    for name, path in files.items():
        _check_hash(repo, name, path, siblings[name].lfs)
    licence = getattr(info.card_data, "license", None)
    return Fetched(files, info.sha or "main", licence if isinstance(licence, str) else None)


def choose(repo: str, names: list[str], file: str | None) -> list[str]:
    """Which files to fetch."""
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if file is not None:
        if file not in ggufs:
            raise ModelDirError(f"{repo} has no GGUF file {file!r}. It has: {', '.join(ggufs) or 'none'}.")
        return [file]
    if found := model_files(names):
        return found
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise ModelDirError(f"{repo} has {len(ggufs)} GGUF files; say which with --file: {', '.join(ggufs)}")
    if pickles := sorted(name for name in names if is_pickle(name)):
        raise ModelDirError(f"{repo}: {pickles[0]} is {NO_PICKLE}")
    raise ModelDirError(f"{repo} has neither safetensors nor GGUF files: {', '.join(sorted(names)[:20]) or 'nothing'}.")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _package() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise DownloadError("The hub needs the huggingface_hub package. Run: pip install 'myna[hub]'") from None
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DownloadError("HF_HUB_OFFLINE is set, so the hub is not asked.")
    return huggingface_hub


def _knock(url: str) -> None:
    """Ask once, with a limit on the whole of it, so that a machine without network learns so in seconds.

    In a thread, because no timeout reaches into name resolution.
    """
    from huggingface_hub.utils import build_hf_headers

    answer: list[str] = []
    headers = build_hf_headers()

    def ask() -> None:
        import httpx  # here: 100 ms

        try:  # a stream, so that the body stays where it is
            with httpx.stream("GET", url, headers=headers, timeout=PATIENCE) as response:
                answer.append("" if response.status_code < 400 else f"it answers {response.status_code} for {url}")
        except httpx.HTTPError as e:
            answer.append(str(e) or type(e).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    said = answer[0] if answer else f"no answer in {PATIENCE:g} s"
    if said:
        private = " A private or gated model needs HF_TOKEN." if "answers 40" in said else ""
        raise DownloadError(f"The hub at {_endpoint()} cannot be used: {said}.{private}")


def _download(hub: ModuleType, repo: str, name: str, revision: str, into: Path, advance: Advance) -> Path:
    with _hub_errors(f"{repo}/{name}"):
        path = hub.hf_hub_download(
            repo,
            name,
            revision=revision,
            local_dir=into / "hub",
            endpoint=_endpoint(),
            etag_timeout=2 * PATIENCE,
            tqdm_class=_reporting(advance),
        )
    return Path(path)


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """The package raises its own errors, its HTTP library's, and OSErrors; none of them is a bug of ours."""
    try:
        yield
    except Exception as e:
        said = " ".join(str(e).split())[:300] or type(e).__name__
        raise DownloadError(f"{what}: {said} Run the command again to go on from where it stopped.") from e


def _check_hash(repo: str, name: str, path: Path, lfs: Any) -> None:
    """Large files come with a sha256; a file that does not match is deleted."""
    expected = getattr(lfs, "sha256", None)
    if expected and (found := sha256(path)) != expected:
        path.unlink()
        raise DownloadError(
            f"{repo}/{name}: sha256 is {found}, the hub says {expected}. It is refused and was deleted."
        )


def _reporting(advance: Advance) -> type:
    """What huggingface_hub takes for a tqdm bar: everything it counts goes to our own progress."""
    from huggingface_hub.utils import tqdm

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **{**kwargs, "disable": True})
            advance(int(kwargs.get("initial") or 0))

        def update(self, n: float | None = 1) -> bool | None:
            advance(int(n or 0))
            return None

    return Reporting
