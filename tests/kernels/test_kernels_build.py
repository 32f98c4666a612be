"""The native library builds, once, for whoever needs it; without a compiler the answers still come."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler, random_packed

from myna.kernels import FORMATS, build, reference
from myna.kernels.program import product
from myna.records import MynaError

COMPILE_TWICE = """
import sys
from myna.kernels import build
print(build.build([*build.COMMON, *build.LEVELS["portable"][1], "-O0"]))
"""


@needs_compiler
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_this_processor_builds(level: str) -> None:
    """Where there is a compiler, a native path that did not build is a failure, not a skip."""
    assert build.load(level).myna_level() == level.encode()


@needs_compiler
def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    env = os.environ | {"MYNA_HOME": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", COMPILE_TWICE], env=env, stdout=subprocess.PIPE) for _ in range(2)
    ]
    paths = {process.communicate()[0] for process in running}
    assert len(paths) == 1
    assert [str(path) for path in (tmp_path / "kernels").iterdir()] == [paths.pop().decode().strip()]


def test_without_a_compiler_it_is_said_once_and_answers_come(tmp_path: Path) -> None:
    code = """
from myna.kernels import library
from myna.model.linear import int8_linear
import torch
assert library() is None and library() is None
layer = int8_linear(64, 40)
layer.fill(0, torch.ones(40, 64))
assert torch.allclose(layer(torch.ones(1, 64)), torch.tensor(64.0), rtol=0.01)
"""
    env = os.environ | {"MYNA_HOME": str(tmp_path), "PATH": "", "CXX": ""}
    env.pop(build.VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stderr.count("no native kernels: there is no C++ compiler") == 1


@pytest.mark.parametrize("level", ["sse9", "AVX512", " avx2"])
def test_a_level_that_is_not_known_is_an_error(level: str) -> None:
    with pytest.raises(MynaError, match="is not known; these are: avx512, avx2, neon, portable, off"):
        build._library(level)


def test_a_level_this_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "features", lambda: {"avx2", "f16c"})
    build._library.cache_clear()
    with pytest.raises(MynaError, match="MYNA_KERNELS=avx2 needs fma, which this processor lacks"):
        build._library("avx2")
    assert build.best() == "portable"


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Compiling takes a moment, and every library made is noted."""
    made: list[Path] = []

    def compile_into(folder: Path, compiler: list[str], flags: list[str]) -> Path:
        path = folder / "kernels.so"
        path.write_bytes(b"a library")
        made.append(path)
        return path

    monkeypatch.setenv("MYNA_HOME", str(tmp_path))
    monkeypatch.setattr(build, "compile_into", compile_into)
    return made


@needs_compiler
def test_what_was_compiled_is_found_again_and_what_is_damaged_is_made_again(compiled: list[Path]) -> None:
    path = build.build(["-O0"])
    assert build.build(["-O0"]) == path
    assert len(compiled) == 1
    for damage in (b"a librarx", b"a lib", b""):
        path.write_bytes(damage)
        assert build.build(["-O0"]).read_bytes() == b"a library"
    assert len(compiled) == 4
    assert build.build(["-O1"]) != path


def test_whatever_decides_the_code_makes_another_library(
    compiled: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, sources = tmp_path / "cxx", tmp_path / "native"
    compiler.touch(mode=0o755)
    sources.mkdir()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "SOURCES", sources)

    def again(flag: str = "-O1") -> None:
        assert build.build([flag]) == build.build([flag])

    compiler.write_text("#!/bin/sh\necho version 1")
    again()
    again("-O2")
    (sources / "kernels.h").write_text("int x;")
    again()
    compiler.write_text("#!/bin/sh\necho version 2")
    again()
    monkeypatch.setattr(build, "features", lambda: {"fma"})
    again()
    monkeypatch.setattr(build.platform, "machine", lambda: "other")
    again()
    assert len(compiled) == 6


@needs_compiler
def test_a_library_outlives_its_compiler(compiled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.build(["-O0"])
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert build.build(["-O0"]) == path
    with pytest.raises(build.Unavailable, match="there is no C\\+\\+ compiler"):
        build.build(["-O1"])


@needs_compiler
def test_where_the_cache_cannot_be_written_to_it_is_said_and_the_kernels_are_there(
    compiled: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kernels").write_text("a file where the folder would be")
    assert build.build(["-O0"]).read_bytes() == b"a library"
    assert "cannot be kept in" in (said := capsys.readouterr().err)
    assert "MYNA_HOME" in said


@needs_compiler
def test_what_nobody_uses_is_cleared_away(compiled: list[Path], tmp_path: Path) -> None:
    kept, old = build.build(["-O0"]), build.build(["-O1"])
    scratch = tmp_path / "kernels" / "tmpabc"
    scratch.mkdir()
    for path in (old, scratch):
        os.utime(path, (0, 0))
    newest = build.build(["-O2"])
    assert {*(tmp_path / "kernels").iterdir()} == {kept, newest}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [("nosuch-compiler", "is no program here"), ("g++ 'x", "cannot be read"), ("true", "it made no library")],
)
def test_a_wrong_cxx_is_named(chosen: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", chosen)
    monkeypatch.setenv("MYNA_HOME", str(tmp_path))
    with pytest.raises(build.Unavailable, match=words):
        build.build(["-O0"])


@needs_compiler
@pytest.mark.skipif(len(LEVELS) == 1, reason="this processor has one level")
def test_a_library_of_another_level_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler may not know what it was asked for."""
    other = build.build([*build.COMMON, *build.LEVELS[LEVELS[-1]][1]])
    monkeypatch.setattr(build, "_shipped", lambda level: other)
    build.load.cache_clear()
    with pytest.raises(build.Unavailable, match=f"the compiler made the level {LEVELS[-1]}, not {LEVELS[0]}"):
        build.load(LEVELS[0])
    build.load.cache_clear()


def test_of_a_wheels_libraries_the_best_is_taken_that_this_processor_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (best, *_), (plain, needs, flags), *_ = build.SHIPPED
    assert best == plain == "avx512"
    monkeypatch.setattr(build, "SOURCES", tmp_path / "native")
    for folder in ("native", "built"):
        (tmp_path / folder).mkdir()
    for shipped, _, those in build.SHIPPED:
        build.shipped_path(shipped, those).touch()
    for had, expected in ((needs | {"avx512_bf16"}, build.SHIPPED[0][2]), (needs, flags)):
        monkeypatch.setattr(build, "features", lambda had=had: had)
        assert build._shipped("avx512") == build.shipped_path("avx512", expected)
    monkeypatch.setattr(build, "features", lambda: needs - {"bmi2"})
    assert build._shipped("avx512") is None, "to be compiled here"


@pytest.mark.parametrize(
    ("torch_has", "allowed", "quota", "threads"),
    [
        (4, 8, "max 100000", 4),
        (8, 3, "max 100000", 3),
        (8, 8, "150000 100000", 2),
        (8, 8, "20000 100000", 1),
        (6, 8, None, 6),
    ],
)
def test_threads_are_no_more_than_there_is_time_for(
    torch_has: int, allowed: int, quota: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path) -> str:
        if quota is None:
            raise FileNotFoundError(path)
        return quota

    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_has)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert build.threads() == threads


@pytest.mark.parametrize(
    ("system", "machine", "cpuinfo", "level"),
    [
        ("Linux", "x86_64", "flags\t\t: fpu avx2 fma f16c\n", "avx2"),
        ("Linux", "aarch64", "BogoMIPS\t: 50.00\nFeatures\t: fp asimd fphp asimdhp asimddp\n", "neon"),
        ("Linux", "aarch64", "Features\t: fp asimd\n", "portable"),
        ("Linux", "riscv64", "isa\t: rv64imafdc\n", "portable"),
        ("Linux", "s390x", "flags", "portable"),
        ("Darwin", "arm64", None, "neon"),
        ("Darwin", "x86_64", None, "portable"),
        ("Windows", "ARM64", None, "portable"),
    ],
)
def test_every_machine_has_a_best_level(
    system: str, machine: str, cpuinfo: str | None, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path) -> str:
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(build.platform, "system", lambda: system)
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert build.best() == level


def big_product(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    out = torch.full((len(x), 4096), torch.nan)  # memory given back and taken again may hold the right answer
    product(x, out, [(packed, (4096, 256), FORMATS["q8"])], None)
    return out


@needs_compiler
def test_many_threads_may_compute_at_once() -> None:
    """One has the pool, the others work alone; resizing in between disturbs nobody."""
    packed, x = random_packed("q8", 4096, 256), torch.randn(4, 256)
    expected = reference.linear(*reference.quantize(x), packed, (4096, 256), FORMATS["q8"])
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            if not (big_product(x, packed) - expected).abs().max() < 1e-3:
                wrong.append(number)

    with native(LEVELS[0], threads=3):
        workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        for size in (1, 4, 2, 3):
            build.load(LEVELS[0]).myna_threads(size)
            time.sleep(0.01)
        for worker in workers:
            worker.join()
    assert wrong == []


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_without_the_parents_threads() -> None:
    packed, x = random_packed("q8", 4096, 256), torch.randn(4, 256)
    with native(LEVELS[0], threads=2):
        expected = big_product(x, packed)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(big_product(x, packed), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
