"""What blocks the loop or will not be cancelled holds up neither Ctrl-C nor the end of a command."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys, time
from myna.commands import stoppable

stoppable.GRACE = 0.3

async def waits():
    await asyncio.sleep(600)

async def blocks():
    time.sleep(600)

async def clings():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("no", flush=True)

async def main(kind, beside):
    if beside:
        task = asyncio.create_task(kind())
        await asyncio.sleep(0)
        print("begun", flush=True)
        return "well"
    print("begun", flush=True)
    try:
        await kind()
    finally:
        print("cleaned up", flush=True)

print(stoppable.run_stoppable(main(globals()[sys.argv[1]], len(sys.argv) > 2)), flush=True)
"""


def begun(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("kind", ["waits", "blocks", "clings"])
def test_ctrl_c_ends_it(kind: str) -> None:
    process = begun(kind)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, err  # Python's own end of a KeyboardInterrupt that nobody caught
    assert out.endswith("cleaned up\n")
    assert "pending" not in err


def test_what_is_left_over_does_not_hold_up_the_end() -> None:
    process = begun("clings", "beside")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[-1]) == (0, "well")
    assert err == "left behind: 1 tasks that do not end when they are cancelled\n"


def test_an_error_is_the_works_own() -> None:
    from myna.commands.stoppable import run_stoppable

    async def fails() -> None:
        raise ValueError("boom")

    async def gives() -> str:
        return "好"

    with pytest.raises(ValueError, match="boom"):
        run_stoppable(fails())
    assert run_stoppable(gives()) == "好"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
