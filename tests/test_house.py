"""The house's own rules: imports go down only, the torch-free rooms start without torch, nothing outgrows a screen."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import myna

SRC = Path(myna.__file__).parent

# Room -> the rooms it may import. docs/design.md draws the same picture.
ARROWS: dict[str, set[str]] = {
    "records": set(),
    "modeldir": {"records"},
    "chat": {"records", "modeldir"},
    "forms": {"records", "chat"},
    "data": {"records", "modeldir", "chat"},
    "kernels": {"records", "modeldir"},
    "model": {"records", "modeldir", "kernels"},
    "engine": {"records", "modeldir", "chat", "model", "kernels"},
    "provider": {"records", "modeldir", "chat", "forms", "model", "engine", "trace"},
    "serve": {"records", "modeldir", "provider"},
    "trace": {"records"},
    "checks": {"records", "forms", "provider", "trace"},
    "apps": {"records", "chat", "forms", "provider", "checks", "trace"},
    "train": {"records", "modeldir", "chat", "data", "kernels", "model", "engine", "provider", "checks"},
    "commands": {
        *(
            "records",
            "modeldir",
            "chat",
            "forms",
            "data",
            "model",
            "kernels",
            "engine",
            "provider",
            "serve",
            "train",
            "checks",
            "trace",
            "apps",
        )
    },
}
TORCH_FREE = [
    "records",
    "modeldir",
    "chat",
    "forms",
    "data",
    "provider",
    "checks",
    "checks.guard",
    "checks.judge",
    "trace",
    "apps.agent",
    "apps.answers",
    "apps.flow",
    "apps.hallucination",
    "apps.index.file",
    "apps.index.graph",
    "apps.index.qdrant",
    "apps.index.tree",
    "apps.prompt",
    "apps.redteam",
    "apps.sql",
    "apps.tools",
    "engine.request",
    "engine.blocks",
    "engine.schedule",
]
FILES = sorted(SRC.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module a file imports, inside functions too."""
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_down_only(path: Path) -> None:
    here = path.relative_to(SRC).parts[0].removesuffix(".py")
    for module in imported(path):
        if module.startswith("myna.") and room(module) != here and here in ARROWS:
            assert room(module) in ARROWS[here], f"{path.relative_to(SRC)} imports {module}"


ON_TOP = {"agent", "redteam"}  # put others together, and load of them what a run needs


@pytest.mark.parametrize(
    "path", [p for p in FILES if "apps" in p.parts and not ON_TOP & set(p.parts)], ids=lambda p: str(p.relative_to(SRC))
)
def test_no_app_imports_another_inside_of_a_function(path: Path) -> None:
    """What two of them need stands lower; such an import hides an arrow between them."""
    own = ".".join(path.relative_to(SRC.parent).parts[:3])
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    inside = {n.module or "" for one in functions for n in ast.walk(one) if isinstance(n, ast.ImportFrom)}
    others = {module for module in inside if module.startswith("myna.apps.") and not f"{module}.".startswith(f"{own}.")}
    assert others == set(), f"{path.relative_to(SRC)} imports {others} where it is used"


def test_every_room_is_in_the_picture() -> None:
    rooms = {p.name for p in SRC.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= set(ARROWS), f"add to ARROWS and docs/design.md: {rooms - set(ARROWS)}"


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_rooms_import_without_torch(module: str) -> None:
    code = f"import sys, myna.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"myna.{module} imports torch"


def test_no_file_outgrows_600_lines() -> None:
    lengths = {str(p.relative_to(SRC)): len(p.read_text().splitlines()) for p in FILES}
    assert {name: n for name, n in lengths.items() if n > 600} == {}


def test_no_oracle_is_imported_by_the_product() -> None:
    oracles = {
        "transformers",
        "peft",
        "trl",
        "datasets",
        "pandas",
        "pyarrow",
        "bitsandbytes",
        "openai",
        "safetensors",
        "accelerate",
    }
    guilty = {str(p.relative_to(SRC)): {m.split(".")[0] for m in imported(p)} & oracles for p in FILES}
    assert {name: found for name, found in guilty.items() if found} == {}


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their names alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_longest_functions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The longest function separates the admired codebases from the regretted; 60 lines is a screen."""
    functions = [
        (node.end_lineno - node.lineno + 1, f"{path.relative_to(SRC)}:{node.lineno} {node.name}")
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    longest = sorted(functions, reverse=True)[:5]
    with capsys.disabled():
        print("\nlongest functions: " + ", ".join(f"{where} ({n})" for n, where in longest))
    assert longest[0][0] <= 60, longest[0]
