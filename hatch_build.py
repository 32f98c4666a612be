"""Puts the native kernels into the wheel, compiled, where there is a C++ compiler; the wheel is then for this platform.

Without one, or where it fails, the wheel is pure Python and carries the sources alone, as it does anyway: they are
compiled on the user's machine when they are first needed. Nothing here can make an installation fail.
"""

import importlib.util
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Runs for wheels; an editable installation compiles at first use, when the sources may have changed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        kernels, self.scratch = _build_module(Path(self.root)), tempfile.TemporaryDirectory()
        try:
            made = _compile_all(kernels, Path(self.scratch.name))
        except (OSError, kernels.Unavailable) as e:
            self.app.display_warning(f"No native kernels in this wheel, they are compiled at first use: {e}")
            return
        build_data["force_include"].update({str(file): f"myna/kernels/built/{file.name}" for file in made})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"  # called through ctypes: for every Python

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "scratch"):
            self.scratch.cleanup()


def _build_module(root: Path) -> ModuleType:
    """myna.kernels.build by itself: importing myna.kernels would need torch."""
    spec = importlib.util.spec_from_file_location("build", root / "src/myna/kernels/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile_all(kernels: ModuleType, into: Path) -> list[Path]:
    """Every library of SHIPPED that this compiler can make; Unavailable when it makes none."""
    compiler, problems = kernels.find_compiler(), []

    def make(shipped: tuple[str, set[str], list[str]]) -> Path | None:
        level, _, flags = shipped
        file = into / kernels.shipped_path(level, flags).name
        try:
            with tempfile.TemporaryDirectory(dir=into) as scratch:
                kernels.compile_into(Path(scratch), compiler, [*kernels.COMMON, *flags]).rename(file)
        except kernels.Unavailable as e:  # another architecture's level, or an old compiler
            problems.append(e)
            return None
        return file

    with ThreadPoolExecutor() as pool:
        made = [file for file in pool.map(make, kernels.SHIPPED) if file]
    if not made:
        raise problems[0]
    return made


def _platform() -> str:
    """This machine's platform in a wheel's name: linux_x86_64. Nobody checked it against manylinux."""
    return next(t.platform for t in sys_tags() if not t.platform.startswith(("manylinux", "musllinux")))
