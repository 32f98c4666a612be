"""What a model wrote runs where it can do nothing: each test tries one way out."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from myna.apps.tools import Asked, Dispatcher
from myna.apps.tools.sandbox import Limits, Mode, Ran, SandboxUnavailable, python_tool, run_python
from myna.records import ToolCall, ToolError

if sys.platform != "linux":
    pytest.skip("the sandbox is made of what Linux offers", allow_module_level=True)


UNSHARE = shutil.which("unshare")  # asked independently of the sandbox, so that a broken one fails and is not skipped
if UNSHARE and subprocess.run([UNSHARE, "-Urnmp", "--fork", "true"], capture_output=True).returncode:
    pytest.skip("no user namespaces here", allow_module_level=True)


def run(code: str, limits: Limits | None = None, mode: Mode = "namespaces") -> Ran:
    return asyncio.run(run_python(code, limits or Limits(), mode))


def test_it_says_what_the_code_printed() -> None:
    ran = run(
        "import statistics, sys\nprint(statistics.mean([1, 2, 6]), '好')\nprint('oh', file=sys.stderr)\nsys.exit(3)"
    )
    assert (ran.out, ran.err, ran.code, ran.stopped, ran.mode) == ("3 好\n", "oh\n", 3, "", "namespaces")


def test_there_is_no_network() -> None:
    """A listener on this machine's loopback is out of reach, so whatever is farther is too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint('reached')")
    assert "reached" not in ran.out
    assert "OSError" in ran.err


def test_no_file_of_ours_can_be_read_or_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the key")
    os.chmod(secret, 0o666)
    look = f"""
import os
for path in [{str(secret)!r}, '/etc/passwd', '/proc/1/environ', '/proc/self/root', '/sys', '/home', '/dev/mem']:
    try:
        print('open', open(path).read())
    except OSError:
        print('closed')
for folder in ['/', '/usr', os.path.dirname(os.__file__)]:
    try:
        open(folder + '/made', 'w').write('x')
        print('open', folder)
    except OSError:
        print('closed')
"""
    assert run(look).out == "closed\n" * 10
    assert not Path(os.__file__).with_name("made").exists()


def test_it_writes_in_a_directory_that_is_gone_afterwards() -> None:
    code = "import os\nprint(os.listdir('.'))\nopen('made', 'w').write('x')\nprint(open('made').read())"
    assert [run(code).out for _ in range(2)] == ["['main.py']\nx\n"] * 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", ""),
        ("kept = [open('main.py') for _ in range(1000)]", "Too many open files"),
        (
            "import os\nwhile True:\n    if os.fork() == 0:\n        import time; time.sleep(9)",
            "temporarily unavailable",
        ),
        (
            "import ctypes, os\nif ctypes.CDLL(None).unshare(0x10000000): raise OSError('no namespaces')",
            "no namespaces",
        ),
        ("import os\nos.setuid(0)", "PermissionError"),
        ("import os\nos.kill(1, 9); os.kill(-1, 15)", ""),
        ("import os\nos.chroot('/usr')", "PermissionError"),
    ],
)
def test_every_way_out_ends_in_an_error(code: str, said: str) -> None:
    ran = run(code, Limits(seconds=5.0))
    assert ran.code != 0
    assert said in ran.err
    assert not ran.stopped


def test_a_disk_limit_holds_over_many_files() -> None:
    code = "n = 0\ntry:\n    while True:\n        open(f'f{n}', 'wb').write(bytes(1 << 20)); n += 1\nexcept OSError: print(n)"
    assert 0 < int(run(code, Limits(disk=8 << 20)).out) <= 8


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(100)",
        "import signal, time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(100)",
        "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(100)",
    ],
    ids=["spins", "sleeps", "ignores signals", "leaves its group"],
)
def test_time_is_up_for_everybody(code: str) -> None:
    ran = run(code, Limits(seconds=0.5))
    assert "0.5 seconds" in ran.stopped
    assert not sleeping()


def sleeping() -> list[str]:
    """Processes of the sandbox that are left."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/box/main.py" in line:
                left.append(entry.name)
    return left


def test_output_without_end_is_cut_counted_and_ended() -> None:
    ran = run("while True: print('x' * 1000)", Limits(output=1000))
    assert ran.stopped == "it wrote too much"
    assert len(ran.out) == 1000
    assert ran.left_out > 16_000


def test_cancelling_ends_it() -> None:
    async def main() -> None:
        task = asyncio.create_task(run_python("import time; time.sleep(100)"))
        end = time.monotonic() + 20
        while not sleeping() and not task.done() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(main())
    assert not sleeping()


def test_weak_mode_is_said_and_keeps_its_limits() -> None:
    ran = run("import os\nprint(os.path.exists('/proc'))\nx = bytearray(1 << 30)", mode="weak")
    assert ran.mode == "weak"
    assert "MemoryError" in ran.err


def test_where_nobody_can_be_locked_in_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The jail fails at its first step; the code must not have run, and the error says what there is instead."""
    from myna.apps.tools import sandbox

    broken = tmp_path / "jail.py"
    broken.write_text(sandbox.JAIL.read_text().replace('_ask("unshare"', '_ask("setns", -1, 0)\n    _ask("unshare"'))
    monkeypatch.setattr(sandbox, "JAIL", broken)
    with pytest.raises(SandboxUnavailable, match="weak"):
        asyncio.run(run_python("print('ran')"))


def test_the_tool_always_asks_and_shows_the_code() -> None:
    shown: list[Asked] = []

    async def ask(asked: Asked) -> bool:
        shown.append(asked)
        return "6 * 7" in asked.arguments

    desk = Dispatcher((python_tool(),), ask=ask)
    calls = [ToolCall("a", "python", '{"code": "print(6 * 7)"}'), ToolCall("b", "python", '{"code": "print(1)"}')]
    first, second = asyncio.run(desk.dispatch(calls, tainted=False))
    assert (first.status, first.result, second.status) == ("ok", "42\n", "refused")
    assert [asked.effect for asked in shown] == ["danger", "danger"]


def test_code_that_is_too_long_is_told_to_the_model() -> None:
    with pytest.raises(ToolError, match="100000"):
        asyncio.run(run_python("#" * 100_001))
