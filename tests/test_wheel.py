"""The wheel carries compiled kernels where there is a compiler, and installs and runs where there is none."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from myna.kernels import build

pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e '.[dev]'")
ROOT = Path(__file__).parent.parent
BUILD = "import sys; from hatchling import build; getattr(build, 'build_' + sys.argv[1])(sys.argv[2])"


def wheel(into: Path, what: str = "wheel", **env: str) -> Path:
    run = [sys.executable, "-c", BUILD, what, str(into)]
    subprocess.run(run, cwd=ROOT, env=os.environ | env, check=True, capture_output=True, text=True)
    (made,) = into.glob("*.whl")
    return made


def libraries(made: Path) -> list[str]:
    return [Path(name).name for name in zipfile.ZipFile(made).namelist() if name.endswith(".so")]


def sources(made: Path) -> set[str]:
    names = zipfile.ZipFile(made).namelist()
    return {Path(name).name for name in names if name.startswith("myna/kernels/native/")}


@pytest.mark.parametrize("env", [{"PATH": "", "CXX": "/nonexistent"}, {"CXX": "false"}], ids=["none", "broken"])
def test_without_a_working_compiler_the_wheel_is_pure_and_carries_the_sources(tmp_path: Path, env: dict) -> None:
    made = wheel(tmp_path, **env)
    assert made.name.endswith("-py3-none-any.whl")
    assert libraries(made) == []
    assert sources(made) == {file.name for file in build.SOURCES.iterdir()}


def test_an_editable_installation_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make serve` installs this way: its kernels are compiled at first use, when the sources may have changed."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["NativeKernels"]
    data: dict[str, object] = {"force_include": {}}
    hook(str(ROOT), {}, None, None, str(tmp_path), "wheel").initialize("editable", data)
    assert data == {"force_include": {}}
    assert not (tmp_path / "called").exists()


SAY = """
from myna.kernels import build
native = build.load({level!r})
print(native.myna_level().decode(), native._name)
"""


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")
def test_an_installed_wheel_needs_no_compiler(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    assert not made.name.endswith("-any.whl")
    assert sources(made) == {file.name for file in build.SOURCES.iterdir()}
    place = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(place), str(made)]
    subprocess.run(install, check=True, capture_output=True)
    env = os.environ | {"PYTHONPATH": str(place), "MYNA_HOME": str(tmp_path / "home"), "PATH": "", "CXX": ""}
    for level in (level for level, (needs, _) in build.LEVELS.items() if needs <= build.features()):
        say = [sys.executable, "-c", SAY.format(level=level)]
        said = subprocess.run(say, env=env, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
        assert said[0] == level
        assert Path(said[1]).parent == place / "myna" / "kernels" / "built"
    assert not (tmp_path / "home").exists()
