"""myna tools: looked at before anything may be called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = """
openapi: 3.1.0
servers: [{url: 'https://shop.example.com'}]
paths:
  /items: {get: {operationId: list, description: "All items [bold]\\e[2J"}, post: {operationId: make}}
  /up: {put: {requestBody: {required: true, content: {image/png: {}}}}}
"""


def myna(*args: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-m", "myna", "tools", *map(str, args)], capture_output=True, text=True, env=env, input=given
    )


def test_a_document_is_shown_with_effects_and_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(SPEC)
    done = myna("show", tmp_path / "shop.yaml")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["list", "read"], ["make", "write"]]
    assert "[bold]\\x1b[2J" in done.stdout
    assert "PUT /up: its body is image/png" in done.stderr
    made = myna("show", tmp_path / "shop.yaml", "--schema", "make")
    assert json.loads(made.stdout)["function"]["name"] == "make"


def test_what_cannot_be_read_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    for args in (("show", tmp_path / "empty.yaml"), ("mcp", "a")):
        done = myna(*args)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


@pytest.mark.slow  # starts the SDK three times
def test_tools_that_are_served_can_be_looked_at_and_agreed_to(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    (tmp_path / "own.py").write_text(
        "from myna.apps.tools import tool\n"
        "@tool(effect='read')\n"
        "def twice(n: int) -> int:\n"
        '    """Twice a number."""\n'
        "    return 2 * n\n"
        "@tool(effect='write')\n"
        "def note(text: str) -> str:\n"
        '    """Keep a note."""\n'
        "    return text\n"
    )
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.argv = ['myna', 'tools', 'serve', {str(tmp_path / 'own.py')!r}]; "
    )
    serve = (sys.executable, "-c", code + "from myna.commands import main; main()")
    pins = ("--pins", tmp_path / "pins.json")
    first = myna("mcp", "own", *pins, "--", *serve)
    assert first.returncode == 0, first.stderr
    assert "twice" in first.stdout
    assert "new" in first.stdout
    assert "note" not in first.stdout
    assert myna("mcp", "own", *pins, "--agree", "twice", "--effect", "read", "--", *serve).returncode == 0
    assert json.loads((tmp_path / "pins.json").read_text())["servers"]["own"]["twice"]["effect"] == "read"
    assert "agreed" in myna("mcp", "own", *pins, "--", *serve).stdout
