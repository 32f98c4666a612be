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
    random, format = torch.Generator().manual_seed(seed + rows + columns), FORMATS[name]
    groups = -(-columns // 32)
    spans = -(-groups // format.span)
    q = torch.randint(0, 1 << format.bits, (rows, groups, 32), generator=random, dtype=torch.uint8)
    if columns % 32:
        q[:, -1, columns % 32 :] = format.zero
    if format.inner:
        whole = torch.randint(0, 256, (rows, groups, 2), generator=random, dtype=torch.uint8)
        return Grouped(q, torch.rand(rows, spans, format.outer // 64, generator=random).div(10000).half(), whole)
    scale = torch.rand(rows, spans, 1, generator=random).div(100).half()
    base = torch.randn(rows, spans, 1, generator=random).div(10).half()
    return Grouped(q, torch.cat((scale, base), -1) if format.outer == 128 else scale)


def random_packed(name: str, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return pack(random_grouped(name, rows, columns, seed), FORMATS[name]).flatten()
