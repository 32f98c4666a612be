"""Work that recurses as deep as a schema or a grammar is nested: on a thread with a stack of its own size.

On 8 MB jsonschema-rs dies (the process, not an exception) of a chain of 2000 references, llguidance of 3000 rules.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_starting = threading.Lock()  # the stack size is the process's, and is set for the moment of starting a thread


def deeply(work: Callable[[], T], stack: int) -> T:
    """What `work` returns or raises, done on a thread with so many bytes of stack while this one waits."""
    found: list[T] = []
    failed: list[BaseException] = []

    def do() -> None:
        try:
            found.append(work())
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=do, name="forms", daemon=True)
    with _starting:
        before = threading.stack_size(stack)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
