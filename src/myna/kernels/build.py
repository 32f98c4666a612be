"""The native library: the wheel's, where it has one for this processor (hatch_build.py makes them with this file), else
compiled with the machine's own compiler when it is first needed and kept in the user's cache.

MYNA_KERNELS chooses a level (avx512, avx2, neon, portable) or `off`; by default the best that this processor has. The file's
name holds a hash of the sources, the compiler and its flags and the processor's features, so another version, compiler or
machine builds its own. It is compiled to a temporary file and renamed: two processes at once do no harm.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
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
    try:
        return load(best() if level == "auto" else level)
    except Unavailable as e:
        print(f"myna: no native kernels: {e} {WITHOUT}", file=sys.stderr)
        return None


def level() -> str:
    """What runs: avx512, avx2, portable, or "torch's own"."""
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
    if level not in LEVELS:
        raise Unavailable(f"{VARIABLE}={level} is not known; these are: {', '.join(LEVELS)}, off.")
    needs, flags = LEVELS[level]
    if missing := needs - features():
        raise Unavailable(f"this processor lacks {', '.join(sorted(missing))} for {VARIABLE}={level}.")
    try:
        native = ctypes.CDLL(str(_find(level, flags)))
    except OSError as e:
        raise Unavailable(f"the compiled library cannot be loaded: {e}.") from None
    native.myna_level.restype = ctypes.c_char_p
    native.myna_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    native.myna_run.restype = None
    native.myna_fit.argtypes = [ctypes.c_void_p]
    native.myna_fit.restype = None
    native.myna_choose.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    native.myna_choose.restype = None
    native.myna_read.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    native.myna_read.restype = ctypes.c_int64
    if (got := native.myna_level().decode()) != level:
        raise Unavailable(f"the compiler made the level {got}, not {level}.")
    native.myna_threads(threads())
    return native


def _find(level: str, flags: list[str]) -> Path:
    """The wheel's library, as fast as one for exactly this processor (docs/log.md); else one compiled here."""
    for shipped, needs, for_all in SHIPPED:
        path = shipped_path(shipped, for_all)
        if shipped == level and needs <= features() and path.exists():
            return path
    return build([*COMMON, *flags])


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
    from myna.modeldir import cache_dir  # here, as above

    compiler = find_compiler()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    key = _hash([platform.machine(), version, *compiler, *flags, *sorted(features())])
    path = cache_dir() / "kernels" / f"{key}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print("myna: compiling the native kernels, once; some seconds", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            compile_to(made, compiler, flags)
            made.rename(path)
    except OSError as e:
        raise Unavailable(f"compiling failed: {e}.") from None
    return path


def compile_to(made: Path, compiler: list[str], flags: list[str]) -> None:
    """Compile the sources into the file `made`. Raises Unavailable with the compiler's last words."""
    command = [*compiler, *flags, "-w", "-o", str(made), str(SOURCES / "kernels.cpp")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as e:
        raise Unavailable(f"compiling failed: {e}.") from None
    if done.returncode:
        raise Unavailable(f"`{shlex.join(command)}` failed: {done.stderr.strip()[-500:]}")


def find_compiler() -> list[str]:
    """$CXX, or c++, g++ or clang++, whichever is there first."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        words = shlex.split(name or "")
        if words and shutil.which(words[0]):
            return words
    raise Unavailable("there is no C++ compiler (install g++ or clang++, or set CXX).")


def _hash(words: list[str]) -> str:
    """Of the words and the sources."""
    sources = [file.read_bytes() for file in sorted(SOURCES.iterdir()) if file.is_file()]
    return hashlib.blake2b("\0".join(words).encode() + b"\0".join(sources), digest_size=12).hexdigest()
