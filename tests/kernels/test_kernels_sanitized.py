"""The kernel tests once more under the address sanitizer: no operation reads or writes outside a buffer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_cases import needs_compiler

HERE = Path(__file__).parent


def runtime() -> str:
    """Where the compiler keeps the sanitizer's library; it must be loaded before Python's own allocations."""
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True)
    return found.stdout.strip() if "/" in found.stdout else ""


@needs_compiler
@pytest.mark.slow
def test_no_operation_leaves_its_buffers() -> None:
    library = runtime() if sys.platform == "linux" else ""
    if not library:
        pytest.skip("g++ has no address sanitizer here")
    env = os.environ | {
        "CXX": "g++ -fsanitize=address -g",
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }
    tests = [str(HERE / f"test_kernels_{name}.py") for name in ("linear", "steps", "attention", "experts", "draw")]
    # The portable level shares all but simd.h with the others, and takes minutes to compile with the sanitizer.
    run = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not portable", *tests]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
