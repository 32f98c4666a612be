"""myna tools: looked at before anything may be called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from myna.commands import app
from myna.records import MynaError

SPEC = """
openapi: 3.1.0
servers: [{url: 'https://shop.example.com'}]
paths:
  /items: {get: {operationId: list, description: "All items [bold]\\e[2J"}, post: {operationId: make}}
  /up: {put: {requestBody: {required: true, content: {image/png: {}}}}}
"""
OWN = '''
from myna.apps.tools import tool

@tool(effect="read")
def twice(n: int) -> int:
    """Twice a number."""
    return 2 * n

@tool(effect="write")
def note(text: str) -> str:
    """Keep a note."""
    return text
'''


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


def test_the_tools_of_a_python_file_are_shown(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    done = myna("show", tmp_path / "own.py")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:]] == [
        ["twice", "read", "not", "said"],
        ["note", "write", "not", "said"],
    ]
    made = myna("show", tmp_path / "own.py", "--schema", "twice")
    assert json.loads(made.stdout)["function"]["description"] == "Twice a number."


@pytest.mark.parametrize("source", ["x = 1 / 0", "def f(:", "from nowhere import x"])
def test_a_python_file_that_cannot_be_run_is_said_with_its_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "own.py").write_text(f"\n{source}\n")
    for verb in ("show", "serve"):
        done = myna(verb, tmp_path / "own.py")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "own.py" in done.stderr
        assert "Traceback" not in done.stderr


def test_what_cannot_be_read_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    for args in (("show", tmp_path / "empty.yaml"), ("mcp", "a")):
        done = myna(*args)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


@pytest.mark.slow  # starts the SDK three times
def test_tools_that_are_served_can_be_looked_at_and_agreed_to(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    (tmp_path / "own.py").write_text(OWN)
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


@pytest.mark.slow  # the SDK takes seconds to start
def test_a_read_that_is_served_runs_whatever_address_it_is_given(tmp_path: Path) -> None:
    """Its client asks its own user; --allow is for writes."""
    pytest.importorskip("mcp")
    (tmp_path / "own.py").write_text(OWN.replace("n: int) -> int", "n: str) -> str"))
    call = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "twice", "arguments": {"n": "a@b.example "}},
    }
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        call,
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "myna", "tools", "serve", str(tmp_path / "own.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as served:
        assert served.stdin
        assert served.stdout
        served.stdin.write("".join(json.dumps(one) + "\n" for one in asked))
        served.stdin.flush()
        said = [served.stdout.readline(), served.stdout.readline()]
        served.stdin.close()
    assert "a@b.example a@b.example" in said[1]


@pytest.mark.parametrize(
    "words", [(), ("http://127.0.0.1:9/mcp",), ("--url", "http://127.0.0.1:9/mcp", "--", "server")]
)
def test_a_server_is_a_command_or_an_address_and_never_both(words: tuple[str, ...]) -> None:
    with pytest.raises(MynaError, match=r"myna tools mcp files --url URL"):
        app(["tools", "mcp", "files", *words], result_action="return_value")
