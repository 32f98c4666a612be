"""Nothing of ours speaks to anybody but the endpoints it was given: no telemetry, no look for a newer version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCH = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg", "socket.bind"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {args[1:]} {sys.argv}\\n")

sys.addaudithook(watch)
"""
PROMPT = "---\ninputs: {text: string}\n---\nuser:\nTranslate: {{ text }}\n"
AGENT = "---\nabout: Helps.\nlimits: {steps: 2}\n---\nsystem:\nYou help.\n\nuser:\n{{ task }}\n"
VERBS = {
    "index": ("index", "add", "docs", "--index", "i.sqlite"),
    "search": ("search", "Ardal bridge", "--index", "i.sqlite"),
    "ask": ("ask", "Who built the Ardal bridge?", "--index", "i.sqlite", "--rounds", "1", "--model", "script:s.jsonl"),
    "extract": ("extract", "schema.json", "docs/bridge.md", "--model", "script:s.jsonl"),
    "prompt": ("prompt", "run", "p.md", "-v", "text=桥", "--model", "script:s.jsonl"),
    "agent": ("agent", "run", "a.md", "Help.", "--model", "script:s.jsonl"),
    "sql": ("sql", "sqlite:shop.sqlite", "How many?", "--model", "script:q.jsonl"),
    "trace": ("trace", "list"),
    "check": ("check", "mask", "docs/bridge.md"),
}
FIRST = {"search": "index", "ask": "index", "trace": "prompt"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import sqlite3

    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/bridge.md").write_text("The Ardal bridge was built in 1912 by Marta Lund.\n")
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"year": {"type": "integer"}}}')
    (tmp_path / "p.md").write_text(PROMPT)
    (tmp_path / "a.md").write_text(AGENT)
    (tmp_path / "s.jsonl").write_text((json.dumps("ENOUGH") + "\n") * 6)
    (tmp_path / "q.jsonl").write_text(json.dumps("SELECT count(*) FROM t") + "\n" + json.dumps("There is 1.") + "\n")
    with sqlite3.connect(tmp_path / "shop.sqlite") as db:
        db.execute("CREATE TABLE t (a INTEGER)")
        db.execute("INSERT INTO t VALUES (1)")
    return tmp_path


def watched(folder: Path, *words: str) -> tuple[str, str]:
    """What a program said, and which connections it and its children wanted."""
    source = Path(__file__).parents[2] / "src"
    env = {
        **os.environ, "PYTHONPATH": f"{folder / 'watch'}:{source}", "WATCHED": str(folder / "seen"), "XDG_CONFIG_HOME": str(folder),
        "MYNA_TRACE": str(folder / "t.sqlite"), "XDG_DATA_HOME": str(folder), "XDG_CACHE_HOME": str(folder),
    }  # fmt: skip
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr, (folder / "seen").read_text() if (folder / "seen").exists() else ""


def test_a_connection_would_be_seen(folder: Path) -> None:
    _, seen = watched(folder, "-c", "import socket; socket.socket().connect_ex(('127.0.0.1', 9))")
    assert "socket.connect" in seen


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_opens_a_connection_of_its_own(verb: str, folder: Path) -> None:
    if first := FIRST.get(verb):
        watched(folder, "-m", "myna", *VERBS[first])
    said, seen = watched(folder, "-m", "myna", *VERBS[verb])
    assert seen == "", said
    assert "Traceback" not in said
    assert not said.startswith(("╭", "myna: no ", "myna: there is no")), said
