"""Threads for what waits on forms: asyncio's own few are for tokenizing, which nobody's schema shall hold up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# They wait for a child process, most of the time; how long, the compiler of forms says.
COMPILING = ThreadPoolExecutor(8, thread_name_prefix="compiling")
CHECKS = ThreadPoolExecutor(32, thread_name_prefix="checks")


async def off_loop(threads: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, on one of these threads, with this task's context."""
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work, *args, **kwargs))
