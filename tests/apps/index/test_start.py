"""What an index needs is imported when it is used: it starts as fast as the standard library lets it."""

import subprocess
import sys
from pathlib import Path

import myna.apps.index

HEAVY = {
    "torch",
    "numpy",
    "qdrant_client",
    "pydantic",
    "yaml",
    "jinja2",
    "pypdfium2",
    "selectolax",
    "httpx",
    "transformers",
}


def test_who_answers_loads_nothing_that_reads_files() -> None:
    code = "import sys, myna.apps.answers; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"myna.apps.index.reading", "myna.apps.index.worker", "myna.checks.judge"} & set(loaded) == set()


def test_no_module_of_the_index_imports_what_is_heavy() -> None:
    folder = Path(myna.apps.index.__file__).parent
    modules = ["myna.apps.index." + path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"myna.apps.index.qdrant", "myna.apps.index.graph"} <= set(loaded)
    assert HEAVY & set(loaded) == set()
