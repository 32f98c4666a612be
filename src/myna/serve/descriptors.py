"""File descriptors: every connection takes one, and where there are none left nobody new is heard."""

import asyncio
import errno
import logging
import resource
import time
from typing import Any

log = logging.getLogger("myna.serve")
WANTED = 65_535  # vLLM's
OWN = 64  # for weights, files, the log, the schema reader's pipes
NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def have_enough(connections: int) -> None:
    """Raise the soft limit as far as the hard one lets, and warn where so many connections do not fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < connections + OWN:
        log.warning(
            "This process may open %d files, fewer than --max-active %d needs: connections beyond that will wait. "
            "Raise the limit (ulimit -n %d), or lower --max-active.",
            soft,
            connections,
            connections + OWN,
        )


class OutOfDescriptors:
    """An event loop's exception handler. asyncio reports an accept for which nothing was left once for every place of the
    backlog, thousands of times a second, each with a traceback; here it is a line a second. The rest goes on as it was."""

    def __init__(self) -> None:
        self._told, self._silent = -1.0, 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, message = context.get("exception"), context.get("message", "")
        if isinstance(error, ValueError) and "_start_serving" in message:
            return  # asyncio tries again to accept a second later, and the server has closed its socket meanwhile
        if not (isinstance(error, OSError) and error.errno in NONE_LEFT and "accept" in message):
            loop.default_exception_handler(context)
            return
        self._silent += 1
        if time.monotonic() - self._told >= 1:
            log.error("no connection can be accepted: %s (%d attempts). See ulimit -n", error.strerror, self._silent)
            self._told, self._silent = time.monotonic(), 0
