"""Programs on a processor that is not here: compiled for ARM, run by qemu, their results written back where they belong."""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from myna.kernels import Adapters, LowRank, Program, Routes, Step, build

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
LEVELS = ("neon", "portable")
MISSING = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
needs_emulator = pytest.mark.skipif(
    bool(MISSING) or sys.platform != "linux",
    reason=f"no {' and no '.join(MISSING)} here (apt install g++-aarch64-linux-gnu qemu-user-static): NEON is not tested",
)


@cache
def binary(level: str) -> Path:
    # -O1: the portable level compiles in a fifth of the time, and no flag here lets an order of sums change.
    flags = [flag for flag in build.COMMON if flag not in ("-shared", "-O3")] + ["-O1", *build.LEVELS[level][1]]
    path = Path(tempfile.mkdtemp(prefix="myna-arm-")) / level
    source = Path(__file__).parent / "kernels" / "emulated.cpp"
    command = [COMPILER, *flags, "-static", "-Wall", "-Werror", f"-I{build.SOURCES}", "-o", str(path), str(source)]
    subprocess.run(command, check=True)
    return path


def run(level: str, program: Program, *memory: object) -> None:
    """Run the program at this level of ARM. `memory`: what it reads besides the tensors it keeps."""
    regions = {}
    for thing in (*program.kept, *memory):
        regions.update({address: (size, holds) for address, size, holds in _regions(thing)})
    with tempfile.TemporaryDirectory() as scratch:
        sent, got = Path(scratch) / "sent", Path(scratch) / "got"
        with sent.open("wb") as file:
            file.write(np.array([len(program.ops), len(regions)], np.int64).tobytes())
            file.write(b"".join(bytes(op) for op in program.ops))
            for address, (size, holds) in regions.items():
                file.write(np.array([address, size, holds], np.int64).tobytes() + ctypes.string_at(address, size))
        done = subprocess.run([EMULATOR, str(binary(level)), str(sent), str(got)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made, _, results = got.read_bytes().partition(b"\0")
    assert made.decode() == level
    at = 0
    for address, (size, holds) in regions.items():
        if not holds:
            ctypes.memmove(address, results[at : at + size], size)
            at += size
    assert at == len(results)


def _regions(thing: object) -> Iterator[tuple[int, int, bool]]:
    """Address, size, and whether addresses lie there, of all that a thing holds."""
    match thing:
        case Tensor():
            storage = thing.untyped_storage()
            yield storage.data_ptr(), storage.nbytes(), False
        case np.ndarray():
            yield thing.ctypes.data, thing.nbytes, False
        case array():
            address, count = thing.buffer_info()
            yield address, count * thing.itemsize, False
        case Step() | Routes() | Adapters() | LowRank():
            for part in vars(thing).values():
                yield from _regions(part)
        case list() | tuple():
            for one in thing:
                yield from _regions(one)
        case ctypes.Structure() | ctypes.Array():
            yield ctypes.addressof(thing), ctypes.sizeof(thing), True
        case ctypes.c_int32():
            yield ctypes.addressof(thing), 4, False
        case int() | None:  # how much there is, of something sent beside it; what is not there
            pass
        case _:
            raise TypeError(f"how a {type(thing).__name__} is sent to the emulator is not known")
