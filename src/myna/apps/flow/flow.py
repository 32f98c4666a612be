"""@flow: a plain async function that calls steps. It is called as it is, or run with a journal.

@flow(max_calls=rewrite.max_calls + 2 * answer.max_calls)
async def desk(question: str, *, provider: Provider) -> str: ...

text = await desk("...", provider=provider)                                       # a function
ended = await run(desk, journal, {"question": "..."}, {"provider": provider})     # can be resumed
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from myna.apps.flow.code import code_of
from myna.apps.flow.errors import FlowError
from myna.apps.flow.running import Running, Unkept
from myna.apps.flow.scope import SCOPE, Scope
from myna.apps.flow.step import Step, plainly
from myna.apps.flow.values import Shape
from myna.provider.budget import Budget, Budgeted, Limits

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Flow(Generic[P, T]):
    """See `flow`."""

    name: str
    shape: Shape
    max_calls: int

    @cached_property
    def code(self) -> dict[str, str]:
        return code_of(self.shape.function)

    def step(self, name: str) -> Step[Any, Any] | None:
        """The step of this name that the flow's file has, or a module that the file has; None where it is nowhere there."""
        near = list(self.shape.function.__globals__.values())
        near += [one for module in near if isinstance(module, ModuleType) for one in vars(module).values()]
        return next((one for one in near if isinstance(one, Step) and one.name == name), None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Its value, without a journal; inside of another flow its steps are that one's."""
        inputs, means = self.shape.bind(args, kwargs)
        scope = SCOPE.get()
        if scope is not None:
            budget = Budget(Limits(calls=self.max_calls), parent=scope.budget)
            inside = Scope(scope.running, scope.place(self.name), budget, None)
            return self.within(inside, inputs, means, around=scope.budget)
        budget = Budget(Limits(calls=self.max_calls))
        return plainly(self._alone(Scope(Running(Unkept(), None, "alone"), "", budget, None), inputs, means))

    async def _alone(self, scope: Scope, inputs: Mapping[str, Any], means: Mapping[str, Any]) -> Any:
        try:
            return await self.within(scope, inputs, means)
        finally:
            await scope.running.close()

    async def within(
        self, scope: Scope, inputs: Mapping[str, Any], means: Mapping[str, Any], around: Budget | None = None
    ) -> Any:
        """The flow, with its steps in this scope; its providers answer within the scope's budget. `around`: the budget they have."""
        given = dict(means)
        for name in self.shape.providers:
            if (provider := given[name]) is not None:
                if around is not None and isinstance(provider, Budgeted) and provider.budget is around:
                    provider = provider.inner
                given[name] = Budgeted(provider, scope.budget, scope.running.prices)
        token = SCOPE.set(replace(scope, task=asyncio.current_task()))
        try:
            _, value = self.shape.write_output(await self.shape.function(**inputs, **given))
            return value
        finally:
            SCOPE.reset(token)


@overload
def flow(function: Callable[P, Coroutine[Any, Any, T]], /) -> Flow[P, T]: ...
@overload
def flow(*, max_calls: int) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Flow[P, T]]: ...
def flow(function: Any = None, /, *, max_calls: int | None = None) -> Any:
    """Make a flow of an async function. Its inputs and its output are typed data, as a step's are.

    max_calls   of models that it makes at most; needed where it is given a provider. The sum of its steps' `max_calls`, each as often as
                it is called at most. It is printed before a run, and no further call is made

    Raises FlowError where that cannot be.
    """
    if function is None:
        return lambda function: _flow(function, max_calls)
    return _flow(function, max_calls)


def _flow(function: Callable[..., Any], max_calls: int | None) -> Flow[Any, Any]:
    shape = Shape.of(function, "flow")
    if max_calls is None and shape.providers:
        raise FlowError(
            f"{shape.where} is given a provider: say how many calls it makes at most, as @flow(max_calls=...), such as the sum of "
            "its steps' .max_calls"
        )
    return Flow(function.__name__, shape, max_calls or 0)
