"""The kernel tests once more under the address sanitizer: no operation reads or writes outside a buffer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_cases import needs_compiler

HERE = Path(__file__).parent


def runtime(name: str) -> str:
    """Where the compiler keeps a library; it must be loaded before Python's own allocations."""
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True)
    return found.stdout.strip() if "/" in found.stdout else ""


@needs_compiler
@pytest.mark.slow
def test_no_operation_leaves_its_buffers() -> None:
    # The second, so that the first finds what throws: without it every exception of torch's ends the process.
    libraries = [runtime(name) for name in ("libasan.so", "libstdc++.so")] if sys.platform == "linux" else []
    if not libraries or not all(libraries):
        pytest.skip("g++ has no address sanitizer here")
    env = os.environ | {
        # Checks that are called, not written out at every access, compile in a third of the time.
        "CXX": "g++ -fsanitize=address -g1 --param asan-instrumentation-with-call-threshold=0",
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }
    names = ("linear", "steps", "attention", "experts", "adapters", "draw", "quantize")
    # The portable level shares all but simd.h with the others, and takes minutes to compile with the sanitizer.
    run = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not portable"]
    run += [str(HERE / f"test_kernels_{name}.py") for name in names]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
