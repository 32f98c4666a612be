"""Fixtures every room shares: the real models, pulled by the product's own `pull` into the user's cache."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from myna.modeldir import DEFAULT, cache_dir, pull
from myna.records import MynaError

# A busy machine is no defect: no test measures time.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a model directory; fetched on first use (93 MB), shared by parallel test runs."""
    try:
        return pull("smollm2-135m")
    except (MynaError, OSError) as e:
        pytest.skip(f"smollm2-135m cannot be had: {e}")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a model directory; fetched on first use (84 MB)."""
    try:
        return pull("all-minilm-l6-v2")
    except (MynaError, OSError) as e:
        pytest.skip(f"all-minilm-l6-v2 cannot be had: {e}")


@pytest.fixture(scope="session")
def qwen_coder() -> Path:
    """The default model, if somebody pulled it; MYNA_TEST_DEFAULT_MODEL=1 pulls it (1.1 GB)."""
    place = cache_dir() / "models" / DEFAULT
    if not place.is_dir() and os.environ.get("MYNA_TEST_DEFAULT_MODEL") != "1":
        pytest.skip(f"{DEFAULT} is not in the cache; set MYNA_TEST_DEFAULT_MODEL=1 to pull it (1.1 GB)")
    try:
        return pull(DEFAULT)
    except (MynaError, OSError) as e:
        pytest.skip(f"{DEFAULT} cannot be had: {e}")
