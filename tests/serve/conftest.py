"""A real server, on a free port, over a scripted provider."""

import contextlib
import functools
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live_server import Live

from myna.provider import Provider, Scripted
from myna.serve import create_app


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Every HTTP client reads the world's certificates when it is made, which takes longer than most tests; here nothing is
    encrypted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """`live(provider_or_script, **create_app's options)` starts a server that ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(provider: Provider | list[Any], **options: Any) -> Live:
            served = Scripted(provider) if isinstance(provider, list) else provider
            return stack.enter_context(Live(create_app(served, **options)))

        yield start
