"""The command line as a user meets it: start-up, errors, pipes, and a conversation in a real terminal."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from myna.commands import VERBS

MYNA = [sys.executable, "-m", "myna"]


def myna(*args: str, stdin: str = "", home: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"MYNA_HOME": str(home)} if home else {}) | {"COLUMNS": "200"}
    return subprocess.run([*MYNA, *args], input=stdin, capture_output=True, text=True, env=env, timeout=120)


def test_help_names_every_verb_and_imports_no_torch() -> None:
    code = "import sys; sys.argv = ['myna', '--help']\ntry:\n    import myna.commands; myna.commands.main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, "--help imported torch"
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    done = myna(verb, "--help")
    assert done.returncode == 0
    assert f"Usage: myna {verb}" in done.stdout


@pytest.mark.parametrize(("args", "words"), [
    (["show", "nosuch"], "no model 'nosuch'"),
    (["show", "./nosuch"], "./nosuch: there is no such folder"),
    (["show", "smollm2-135"], "Did you mean smollm2-135m"),
    (["chat", "smollm2-135m"], "myna pull smollm2-135m"),
    (["pull", "/no/such/file.gguf"], "no file"),
    (["generate", ""], "prompt is empty"),
    (["index", "list", "--index", "x" * 300], "x: File name too long"),
])  # fmt: skip
def test_an_error_is_one_line_that_says_what_to_do_and_exits_2(args: list[str], words: str, tmp_path: Path) -> None:
    done = myna(*args, home=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_misspelt_flag_is_an_error_that_names_the_nearest() -> None:
    done = myna("chat", "--tempreture", "1")
    assert done.returncode != 0
    assert "--temperature" in done.stdout + done.stderr


def test_list_of_an_empty_home_says_what_can_be_pulled(tmp_path: Path) -> None:
    done = myna("list", home=tmp_path)
    assert "myna pull qwen2.5-coder-1.5b-instruct (the default)" in done.stdout


def test_a_closed_pipe_is_no_error(smollm2: Path) -> None:
    done = subprocess.run(f"{sys.executable} -m myna list | head -c 1", shell=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("args", ["list", "pull smollm2-135m"])
def test_a_full_disk_is_one_line(args: str, smollm2: Path) -> None:
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    line = f"{sys.executable} -m myna {args} > /dev/full"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=buffered)
    assert (done.returncode, done.stderr.count("\n"), "disk is full" in done.stderr) == (2, 1, True)


def test_generate_reads_a_pipe_and_writes_a_record(smollm2: Path) -> None:
    done = myna(
        "generate",
        "--model",
        "smollm2-135m",
        "--temperature",
        "0",
        "--json",
        "--logprobs",
        "0",
        stdin="Complete: The capital of France is",
    )
    row = json.loads(done.stdout)
    candidate = row["candidates"][0]
    assert candidate["messages"][0]["content"] == "The capital of France is Paris."
    assert len(candidate["tokens"]["ids"]) == len(candidate["tokens"]["logprobs"])


def test_explain_shows_typed_control_tokens_as_text(smollm2: Path) -> None:
    done = myna("explain", "smollm2-135m", "-m", "hi <|im_end|> 你好")
    assert "hi <|im_end|> 你好" in done.stdout
    assert re.search(r"^\d+ tokens: markup \d+, user \d+$", done.stdout, re.M)


def test_show_says_what_it_is_and_whether_it_fits(smollm2: Path) -> None:
    done = myna("show", "smollm2-135m")
    for words in ("llama", "134,515,008", "Apache-2.0", "8192 tokens", "fits", "mixed"):
        assert words in done.stdout


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *args: str, term: str = "dumb"):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = term
            os.execv(sys.executable, [*MYNA, *args])
        self.seen = ""

    def wait_for(self, pattern: str, seconds: float = 180) -> str:
        """Everything up to and including the pattern."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"waited for {pattern!r}, saw {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        text, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(smollm2: Path) -> Iterator[Terminal]:
    started = Terminal("chat", "smollm2-135m", "--temperature", "0")
    yield started
    with contextlib.suppress(ProcessLookupError):  # a test that failed leaves it running
        os.kill(started.pid, signal.SIGKILL)


def test_a_conversation_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.wait_for("> ")
    terminal.type("Complete: The capital of France is\n")
    assert "The capital of France is Paris." in terminal.wait_for(r"tokens, .*stop\]")
    terminal.type("/nonsense\n")
    terminal.wait_for("there is no /nonsense")
    terminal.type("/set max_tokens 5\n/again\n")
    terminal.wait_for(r"\[5 tokens, .*length\]")
    terminal.type(f"/save {tmp_path / 'nowhere' / 'talk.jsonl'}\n")
    terminal.wait_for("cannot write")
    terminal.type(f"/save {tmp_path / 'talk.jsonl'}\n")
    terminal.wait_for("saved")
    terminal.type("/quit\n")
    assert terminal.end() == 0
    saved = json.loads((tmp_path / "talk.jsonl").read_text())
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"]
    assert len(saved["messages"][1]["tokens"]["ids"]) == 5


def test_pasted_lines_are_one_message(smollm2: Path, tmp_path: Path) -> None:
    terminal = Terminal("chat", "smollm2-135m", "--temperature", "0", "--max-tokens", "20", term="xterm")
    terminal.wait_for(r"\x1b\[\?2004h")  # chat asks the terminal to mark what is pasted
    terminal.wait_for("> ")
    terminal.type("\x1b[200~What is\nthe capital\nof France?\x1b[201~\n")  # how a terminal marks a paste
    terminal.wait_for(r"tokens, .*\]")
    terminal.type(f"/save {tmp_path / 'talk.jsonl'}\n/quit\n")
    assert terminal.end() == 0
    saved = json.loads((tmp_path / "talk.jsonl").read_text())
    assert [m["content"] for m in saved["messages"] if m["role"] == "user"] == ["What is\nthe capital\nof France?"]


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    terminal.wait_for("> ")
    terminal.type("Tell me a very long story about a fox.\n")
    terminal.wait_for(r"fox\.\s+\w+")  # the echo of the question, then the answer begins
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for(r"stopped\]")
    terminal.wait_for("> ")
    time.sleep(0.5)  # a signal between the prompt and the read that follows it is noticed at the next key only
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for("Ctrl-D or /quit leaves")
    terminal.type("Complete: The capital of France is\n")
    terminal.wait_for("Paris")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_keys_prints_a_key_once_and_lists_and_revokes_it(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.jsonl")
    made = myna("keys", "add", file, "--name", "ci", "--requests-per-minute", "60")
    assert made.returncode == 0
    assert re.fullmatch(r"myna-[\w-]{43}\n", made.stdout)
    shown = myna("keys", "list", file).stdout
    assert "ci" in shown
    assert "60" in shown
    assert made.stdout.strip() not in shown
    assert myna("keys", "revoke", file, "--name", "ci").returncode == 0
    assert "ci" not in myna("keys", "list", file).stdout.splitlines()[1:]
    nameless = myna("keys", "add", file)
    assert nameless.returncode == 2
    assert "--name NAME" in nameless.stderr
