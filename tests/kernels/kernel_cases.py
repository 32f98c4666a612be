"""Random packed weights and the native library at every level, for the kernel tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from myna.kernels import build
from myna.kernels.formats import FORMATS, Grouped, pack

COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
# Only a machine without any compiler may skip; a library that did not build fails.
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler: the native kernels cannot be tested here")
LEVELS = [level for level, (needs, _) in build.LEVELS.items() if needs <= build.features()]


@contextmanager
def native(level: str, threads: int = 2) -> Iterator[None]:
    """Run the block with this level of the native library and so many threads."""
    before = os.environ.get(build.VARIABLE)
    os.environ[build.VARIABLE] = level
    try:
        library = build.load(level)  # raises where `library()` would only say so
        library.myna_threads(threads)
        yield
        library.myna_threads(build.threads())
    finally:
        os.environ.pop(build.VARIABLE) if before is None else os.environ.update({build.VARIABLE: before})


def random_grouped(name: str, rows: int, columns: int, seed: int = 0) -> Grouped:
    """Every value a number can have, and scales of about 1 / 100."""
    random = torch.Generator().manual_seed(seed + rows + columns)
    shape = (rows, -(-columns // 32), 1)
    most = 256 if name == "q8" else 16
    q = torch.randint(0, most, (*shape[:2], 32), generator=random, dtype=torch.uint8)
    if columns % 32:
        q[:, -1, columns % 32 :] = {"q8": 128, "q4s": 8}.get(name, 0)
    if name == "q4k":
        small = torch.randint(0, 64, (2, *shape), generator=random, dtype=torch.uint8)
        outer = torch.rand(rows, columns // 256, 2, generator=random).div(1000).half()
        return Grouped(q, small[0], small[1], outer)
    scale = torch.rand(shape, generator=random).div(100).half()
    base = torch.randn(shape, generator=random).div(10).half()
    return Grouped(q, scale, base if name == "q4a" else None)


def random_packed(name: str, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return pack(random_grouped(name, rows, columns, seed), FORMATS[name]).flatten()


def columns_for(name: str, columns: int) -> int:
    """q4k packs multiples of 256 columns."""
    return -(-columns // 256) * 256 if name == "q4k" else columns
