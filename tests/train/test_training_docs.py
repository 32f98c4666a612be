"""docs/training.md and the recipes say what is so."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from myna.train.method import find, known
from myna.train.options import SECTIONS, meanings, read_config
from myna.train.run import configure

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/training.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "recipes").glob("*/*.yaml"))


def table() -> list[str]:
    """Every common key with its default and its meaning, as docs/training.md has them."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for section, cls in SECTIONS.items():
        for f in fields(cls):
            value = " ".join(f.default) if isinstance(f.default, tuple) else str(f.default)
            shown = f"`{value}`" if value else ""
            rows.append(f"| `{section}.{f.name}` | {shown} | {meanings(cls)[f.name]} |".replace("  ", " "))
    return rows


def test_every_key_is_in_the_docs_as_it_is_in_the_code() -> None:
    assert "\n".join(table()) in DOCS, "docs/training.md, Keys: put this in\n" + "\n".join(table())


def test_every_method_is_in_the_docs() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE)
    assert sorted(listed) == known()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_recipes_have_keys_that_are_there(file: Path) -> None:
    method = file.read_text(encoding="utf-8").partition("method: ")[2].split()[0]
    module = find(method)
    config = configure(method, str(file), ())
    assert config != read_config(method, module.Options, module.DEFAULTS)


@pytest.mark.parametrize("folder", sorted({file.parent for file in CONFIGS}), ids=lambda folder: folder.name)
def test_a_recipe_reads_in_one_sitting(folder: Path) -> None:
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= 50
    scripts = [*folder.glob("*.py")]
    assert scripts
    assert sum(len(script.read_text(encoding="utf-8").splitlines()) for script in scripts) < 300
