"""What one rendering may cost: processor time, the size of any one value, and of all values together.

A template is a program from a stranger's model file. Three rules, enforced where values are made, bound it:
every loop turn, call and filter checks the clock; every value is measured as it is made, shared parts counted each
time they are reached, so a small value cannot print as a huge one; every operation whose result can be much larger
than its operands is measured before it is done.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sized
from types import GeneratorType
from typing import Any

from jinja2 import TemplateRuntimeError

SECONDS = 1.0  # of this thread's processor time; a real template needs milliseconds
BASE = 1_000_000  # characters or items one value may hold, beyond four times the input's
NESTING = 64
INT_BITS = 4096
SCAN = 10**8  # steps of a naive string search: about 0.1 s


class LimitError(TemplateRuntimeError):
    """The template asked for more than a rendering may cost."""


class Budget:
    """The allowance of one rendering whose input has `size` characters. Used by one thread."""

    def __init__(self, size: int):
        self.most = BASE + 4 * size
        self.left = 32 * self.most
        self.wall = time.monotonic() + SECONDS
        self.processor = time.thread_time() + SECONDS

    def tick(self) -> None:
        # The wall clock is cheap to read; the processor's, which a busy machine cannot use up for us, decides.
        if time.monotonic() > self.wall and time.thread_time() > self.processor:
            raise LimitError(f"it ran for more than {SECONDS:g} s; does it loop for ever?")

    def allow(self, size: int) -> None:
        """A value of this size is about to be made."""
        self.tick()
        if size > self.most:
            raise LimitError(f"it builds a value of {size:,} characters or items; at most {self.most:,} are allowed")

    def spend(self, value: Any) -> Any:
        """Count a new value. A generator is run here, item by item, so that nothing large hides in one."""
        if isinstance(value, GeneratorType):
            value = self._run(value)
        size = measure(value, self.most)
        self.allow(size)
        self.left -= size
        if self.left < 0:
            raise LimitError(f"its values add up to more than {32 * self.most:,} characters or items")
        return value

    def _run(self, items: Iterable[Any]) -> list[Any]:
        done = []
        for item in items:
            self.spend(item)
            done.append(item)
        return done


def measure(value: Any, most: int, depth: int = 0) -> int:
    """Characters and items in `value`, counted as often as they would be printed; stops soon after `most`."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int) and value.bit_length() > INT_BITS:
        raise LimitError(f"it computes a number of {value.bit_length():,} bits")
    if isinstance(value, bytes | bytearray):
        raise LimitError("it makes bytes, which no chat template needs")
    if not isinstance(value, list | tuple | set | frozenset | Mapping):
        return 1
    if depth > NESTING:
        raise LimitError(f"it nests lists or objects more than {NESTING} deep")
    size = 1
    items = (x for pair in value.items() for x in pair) if isinstance(value, Mapping) else value
    for item in items:
        size += 1 + measure(item, most, depth + 1)
        if size > most:
            break
    return size


class _Current(threading.local):
    budget: Budget | None = None


_current = _Current()


class spending:  # noqa: N801  reads as a statement: `with spending(budget): ...`
    """Within it, `budget()` is this budget, on this thread."""

    def __init__(self, budget: Budget):
        self.budget = budget

    def __enter__(self) -> Budget:
        self.outer, _current.budget = _current.budget, self.budget
        return self.budget

    def __exit__(self, *_: object) -> None:
        _current.budget = self.outer


def budget() -> Budget:
    """The budget of the rendering under way on this thread."""
    if _current.budget is None:
        raise LimitError("a template expression was evaluated outside of a rendering")
    return _current.budget


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse an arithmetic operation whose result would be too large, before it is done."""
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), right.bit_length())
        if bits > INT_BITS or (operator == "**" and left.bit_length() * max(right, 0) > INT_BITS):
            raise LimitError("it computes a number too large to write down")
    if operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | list | tuple) and isinstance(times, int):
                budget().allow(measure(many, budget().most) * max(times, 0))
    if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        budget().allow(len(left) + len(right))
    if operator == "%" and isinstance(left, str):
        check_percent(left)


def check_percent(text: str) -> None:
    """Only plain `%s`, `%d` and the like: a width or precision can ask for a gigabyte of blanks."""
    rest = text.replace("%%", "")
    at = rest.find("%")
    while at >= 0:
        if rest[at + 1 : at + 2] not in tuple("sdifgxr"):
            raise LimitError("a % format with a width, precision or key is not allowed; use %s")
        at = rest.find("%", at + 2)


def check_string_call(name: str, text: str, args: tuple[Any, ...]) -> None:
    """Refuse a string method whose result or running time would be out of proportion."""
    first = args[0] if args else None
    if name == "join" and isinstance(first, Sized):
        budget().allow(measure(first, budget().most) + len(text) * len(first))
    elif isinstance(first, str):
        if len(text) * len(first) > SCAN:
            raise LimitError(f"it searches {len(text):,} characters for a string of {len(first):,}")
        if name == "replace" and len(args) > 1 and isinstance(args[1], str):
            found = len(text) + 1 if not first else text.count(first)
            budget().allow(len(text) + found * len(args[1]))
