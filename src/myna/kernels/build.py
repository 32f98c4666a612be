"""The native library: the wheel's, where it has one for this processor (hatch_build.py makes them with this file), else
compiled with the machine's own compiler when it is first needed and kept in the user's cache.

MYNA_KERNELS chooses a level (avx512, avx2, neon, portable) or `off`; by default the best that this processor has. The file's
name holds three hashes: of the sources, the flags and the processor's features; of the compiler; and of the library itself. So
another version, compiler or machine builds its own, a damaged file is never loaded, and where the compiler is gone what it
made is still found. It is compiled to a temporary file and renamed: two processes at once do no harm.
"""

import atexit
import ctypes
import errno
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
VARIABLE = "MYNA_KERNELS"
COMMON = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fno-math-errno"]
# Level -> what the processor must have (names of Linux's /proc/cpuinfo), and what the compiler is told.
LEVELS: dict[str, tuple[set[str], list[str]]] = {
    "avx512": ({"avx512_vnni", "avx512bw", "avx512vl", "avx512dq", "avx512f"}, ["-march=native"]),
    "avx2": ({"avx2", "fma", "f16c"}, ["-mavx2", "-mfma", "-mf16c"]),
    "neon": ({"asimddp"}, ["-march=armv8.2-a+dotprod"]),
    "portable": (set(), ["-DMYNA_PORTABLE"]),
}
# What a wheel carries for any machine, the best first: the level, what else the processor must have, the compiler's flags.
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c", "-mbmi2"]
SHIPPED: tuple[tuple[str, set[str], list[str]], ...] = (
    ("avx512", {"fma", "f16c", "bmi2", "avx512_bf16"}, [*_AVX512, "-mavx512bf16"]),
    ("avx512", {"fma", "f16c", "bmi2"}, _AVX512),
    *((level, set(), LEVELS[level][1]) for level in ("avx2", "neon", "portable")),
)
HOUR, MONTH = 3600, 30 * 86400  # seconds
WITHOUT = "Answers come from PyTorch's own kernels, three to ten times slower."


class Unavailable(Exception):
    """There is no native library here; the message says why."""


def library() -> ctypes.CDLL | None:
    """The library at the level that MYNA_KERNELS asks for, or None. Why there is none is said once, on stderr."""
    return _library(os.environ.get(VARIABLE) or "auto")


@cache
def _library(level: str) -> ctypes.CDLL | None:
    if level == "off":
        return None
    _check(level)
    try:
        return load(best() if level == "auto" else level)
    except Unavailable as e:
        print(f"myna: no native kernels: {e} {WITHOUT}", file=sys.stderr)
        return None


def _check(level: str) -> None:
    """A level that was asked for by name is that one or an error: who asks would not want another."""
    from myna.records import MynaError  # here, because the wheel's build runs this file by itself

    if level not in ("auto", *LEVELS):
        raise MynaError(f"{VARIABLE}={level} is not known; these are: {', '.join(LEVELS)}, off. Unset it for the best.")
    if level in LEVELS and (missing := LEVELS[level][0] - features()):
        raise MynaError(
            f"{VARIABLE}={level} needs {', '.join(sorted(missing))}, which this processor lacks. Unset it for the best."
        )


def level() -> str:
    """What runs: avx512, avx2, neon, portable, or "torch's own"."""
    native = library()
    return "torch's own" if native is None else native.myna_level().decode()


def features() -> set[str]:
    """What this processor can do, in the words of /proc/cpuinfo; empty where the system does not say."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return {"asimddp"}  # every Mac with an ARM processor has dot products; the system has no such file
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    # Linux says "flags" on x86 and "Features" on ARM, once a core.
    return set(next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "").split())


def best() -> str:
    return next(level for level, (needs, _) in LEVELS.items() if needs <= features())


@cache
def load(level: str) -> ctypes.CDLL:
    """The library of one level, compiled if need be. Raises Unavailable."""
    path = _shipped(level) or build([*COMMON, *LEVELS[level][1]])
    try:
        native = _declared(ctypes.CDLL(str(path)))
    except (OSError, AttributeError) as e:
        raise Unavailable(f"the compiled library cannot be loaded, is CXX a C++ compiler? {e}.") from None
    if (got := native.myna_level().decode()) != level:
        raise Unavailable(f"the compiler made the level {got}, not {level}.")
    native.myna_threads(threads())
    return native


def _declared(native: ctypes.CDLL) -> ctypes.CDLL:
    """The same, with the types of its functions. AttributeError when it is another library."""
    native.myna_level.restype = ctypes.c_char_p
    native.myna_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    native.myna_run.restype = None
    native.myna_fit.argtypes = [ctypes.c_void_p]
    native.myna_fit.restype = None
    native.myna_choose.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    native.myna_choose.restype = None
    native.myna_read.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    native.myna_read.restype = ctypes.c_int64
    return native


def _shipped(level: str) -> Path | None:
    """The wheel's library, as fast as one for exactly this processor (docs/log.md), if it has one."""
    for shipped, needs, flags in SHIPPED:
        path = shipped_path(shipped, flags)
        if shipped == level and needs <= features() and path.exists():
            return path
    return None


def shipped_path(level: str, flags: list[str]) -> Path:
    """Where a wheel has the library of these flags and of exactly these sources."""
    return SOURCES.with_name("built") / f"{level}-{_hash([platform.machine(), *COMMON, *flags])}.so"


def threads() -> int:
    """As many as torch uses, but no more than this process may run on or its control group gives time for."""
    import torch  # here, because the wheel's build, which has no torch, runs this file

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), allowed, _quota()))


def _quota() -> int:
    """Processors that the control group pays for, rounded up."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return 1 << 20 if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError):
        return 1 << 20


def build(flags: list[str]) -> Path:
    """Compile the sources with these flags, unless that was done before; returns the library's path."""
    from myna.modeldir import cache_dir  # here, because the wheel's build runs this file by itself

    folder, key = cache_dir() / "kernels", _hash([platform.machine(), *flags, *sorted(features())])
    try:
        compiler = find_compiler()
    except Unavailable:
        if found := _kept(folder, f"{key}-*"):
            return found
        raise
    made_by = f"{key}-{_compiler_hash(compiler)}"
    return _kept(folder, f"{made_by}-*") or _make(folder, made_by, compiler, flags)


def _kept(folder: Path, pattern: str) -> Path | None:
    """A library in the cache that is still what was compiled. What is not goes."""
    for path in sorted(folder.glob(f"{pattern}.so")):
        with suppress(OSError):
            if _digest(path.read_bytes()) == path.stem.rpartition("-")[2]:
                with suppress(OSError):
                    os.utime(path)  # it is in use: see _clear
                return path
            path.unlink()
    return None


def _make(folder: Path, name: str, compiler: list[str], flags: list[str]) -> Path:
    """Compile into the cache; into a folder of this process alone where the cache cannot be written to."""
    print("myna: compiling the native kernels, once; some seconds", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = compile_into(Path(scratch), compiler, flags)
            path = folder / f"{name}-{_digest(made.read_bytes())}.so"
            with made.open("rb") as file:
                os.fsync(file.fileno())
            return made.rename(path)
    except OSError as e:
        print(
            f"myna: the kernels cannot be kept in {folder} ({e}), so every start compiles them. Make room there, or set "
            "MYNA_HOME to a folder that can be written to.", file=sys.stderr,
        )  # fmt: skip
    try:
        own = tempfile.mkdtemp(prefix="myna-kernels-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return compile_into(Path(own), compiler, flags)
    except OSError as e:
        raise Unavailable(f"there is no room to compile them: {e}.") from None


def _clear(folder: Path) -> None:
    """Remove what nobody has loaded for a month, and what a compiler that was killed left behind."""
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > (MONTH if path.suffix == ".so" else HOUR):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def compile_into(folder: Path, compiler: list[str], flags: list[str]) -> Path:
    """Compile the sources in a folder. Raises Unavailable with the compiler's last words, OSError where there is no room."""
    made = folder / "kernels.so"
    command = [*compiler, *flags, "-w", "-o", str(made), str(SOURCES / "kernels.cpp")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as e:
        raise Unavailable(f"compiling failed: {e}.") from None
    if "No space left" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode or not made.exists():
        said = done.stderr.strip()[-500:] or "it made no library."
        raise Unavailable(f"`{shlex.join(command)}` failed: {said}")
    return made


def find_compiler() -> list[str]:
    """$CXX where that is set, else c++, g++ or clang++, whichever is there first."""
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["c++", "g++", "clang++"]:
        try:
            words = shlex.split(name)
        except ValueError as e:
            raise Unavailable(f"CXX={name} cannot be read: {e}.") from None
        if words and shutil.which(words[0]):
            return words
    raise Unavailable(
        f"CXX={chosen} is no program here; unset it, or set it to a C++ compiler." if chosen
        else "there is no C++ compiler (install g++ or clang++, or set CXX)."
    )  # fmt: skip


def _compiler_hash(compiler: list[str]) -> str:
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as e:
        raise Unavailable(f"`{shlex.join(compiler)} --version` failed: {e}.") from None
    return _digest("\0".join([*compiler, version]).encode())


def _hash(words: list[str]) -> str:
    """Of the words and the sources."""
    sources = [file.read_bytes() for file in sorted(SOURCES.iterdir()) if file.is_file()]
    return _digest("\0".join(words).encode() + b"\0".join(sources))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
