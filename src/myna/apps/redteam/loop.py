"""The bare loop of a model and its tools, for attacks: no plan, no memory, no second thoughts, so that nothing but the dispatcher
stands between a model and what it wants to do."""

from collections.abc import Sequence
from dataclasses import replace

from myna.apps.tools import Dispatcher, Outcome
from myna.provider import Provider, complete
from myna.records import Conversation, Sampling

STEPS = 20


async def talked(
    provider: Provider,
    desk: Dispatcher,
    talk: Conversation,
    *,
    steps: int = STEPS,
    tainted: bool = False,
    sampling: Sampling = Sampling(temperature=0),
) -> tuple[Conversation, Sequence[Outcome]]:
    """(the conversation, every outcome): the model is asked, its calls are dispatched, and so on, until it makes none. At most
    `steps` calls of the model. `tainted`: a stranger's text is in the conversation from the beginning."""
    outcomes: list[Outcome] = []
    talk = replace(talk, tools=desk.schemas)
    for _ in range(steps):
        message = (await complete(provider, talk, sampling)).candidates[0].messages[-1]
        talk += message
        if not message.tool_calls:
            break
        new = await desk.dispatch(message.tool_calls, tainted=tainted)
        tainted |= any(one.untrusted for one in new)
        outcomes += new
        for one in new:
            talk += one.message
    return talk, outcomes
