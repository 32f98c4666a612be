"""@step: an async function whose every call is written down before it begins and after it ends.

@step(calls=2, checks={"short": short}, retry=1)
async def answer(question: str, *, provider: Provider) -> str: ...

@step(effect="write", probe=is_sent)
async def send(to: str, text: str) -> Receipt: ...
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from myna.apps.flow.attempts import make
from myna.apps.flow.declared import Declared
from myna.apps.flow.errors import FlowError, Halt
from myna.apps.flow.journal import Effect
from myna.apps.flow.probe import Probe
from myna.apps.flow.running import Running, Unkept
from myna.apps.flow.scope import SCOPE, Scope
from myna.apps.flow.values import Shape
from myna.checks import AnyCheck
from myna.provider.budget import Budget, Limits

P = ParamSpec("P")
T = TypeVar("T")
SECONDS = 600.0  # that a step may take if nobody says


class Step(Declared, Generic[P, T]):
    """A step that can be called. See `step`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Its place in the flow is that of this call, whenever it is awaited. Outside of a flow it is a plain function."""
        inputs, means = self.shape.bind(args, kwargs)
        scope = SCOPE.get()
        if scope is not None:
            return make(self, scope, scope.place(self.name), inputs, means)
        alone = Scope(Running(Unkept(), None, "alone"), "", Budget(Limits()), None)
        return plainly(make(self, alone, self.name, inputs, means))


async def plainly(work: Coroutine[Any, Any, T]) -> T:
    """Without a journal there is nothing to resume: what would halt is an error like others."""
    try:
        return await work
    except Halt as e:
        raise FlowError(str(e)) from e


@overload
def step(function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...
@overload
def step(
    *, effect: Effect = "read", calls: int | None = None, retry: int = 0, timeout: float | None = SECONDS,
    checks: Mapping[str, AnyCheck] = {}, probe: Probe | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Step[P, T]]: ...  # fmt: skip
def step(
    function: Any = None, /, *, effect: Effect = "read", calls: int | None = None, retry: int = 0,
    timeout: float | None = SECONDS, checks: Mapping[str, AnyCheck] = {}, probe: Probe | None = None,
) -> Any:  # fmt: skip
    """Make a step of an async function. What stands before the * are inputs: typed data, kept in the journal, as is the output.

    effect    write: its own code (not the steps it calls) changes something outside. It is made at most once: one that was caught in
              the middle, or raised anything but NotDone, is `unknown` until its probe or a person says what happened
    calls     of models that one attempt makes at most; one if it is given a provider. Its provider refuses more
    retry     further attempts after one that raised, took too long, or failed a check; for a write, after NotDone
    timeout   seconds that an attempt may take
    checks    of its output, by name. A check sees the inputs as the user's turn and the output as the answer: texts as they are, anything
              else as JSON
    probe     see Probe; it takes what the step takes

    Raises FlowError where that cannot be.
    """
    if function is None:
        return lambda function: _step(function, effect, calls, retry, timeout, checks, probe)
    return _step(function, effect, calls, retry, timeout, checks, probe)


def _step(
    function: Callable[..., Any], effect: Effect, calls: int | None, retry: int, timeout: float | None, checks: Mapping[str, AnyCheck],
    probe: Probe | None,
) -> Step[Any, Any]:  # fmt: skip
    shape = Shape.of(function, "step")
    if effect not in ("read", "write"):
        raise FlowError(f"{shape.where}: effect is read or write, not {effect!r}")
    if effect == "write" and checks:
        raise FlowError(f"{shape.where}: a check cannot undo a write; check what it will write, in a step before it")
    if effect == "read" and probe is not None:
        raise FlowError(f"{shape.where}: a probe says whether a write happened; a read is simply made again")
    if retry < 0 or (calls is not None and calls < 0) or (timeout is not None and timeout <= 0):
        raise FlowError(f"{shape.where}: retry and calls are 0 or more, and timeout is more than 0 seconds or None")
    made = len(shape.providers) if calls is None else calls
    return Step(function.__name__, effect, shape, made, retry, timeout, checks, probe)
