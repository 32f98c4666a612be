"""What is said of a step where it is declared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from myna.apps.flow.code import code_of
from myna.apps.flow.journal import Effect
from myna.apps.flow.probe import Probe
from myna.apps.flow.values import Shape
from myna.checks import AnyCheck


@dataclass(frozen=True)
class Declared:
    """See `step`."""

    name: str
    effect: Effect
    shape: Shape
    calls: int
    retry: int
    timeout: float | None
    checks: Mapping[str, AnyCheck] = field(default_factory=dict)
    probe: Probe | None = None

    @property
    def max_calls(self) -> int:
        """Calls of models that it makes at most, all attempts counted."""
        return self.calls * (1 + self.retry)

    @cached_property
    def code(self) -> dict[str, str]:
        return code_of(self.shape.function)
