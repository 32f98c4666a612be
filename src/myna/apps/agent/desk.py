"""The desk at which a run's calls are executed: the agent's tools and its own, kept before they begin and seen in the trace."""

from collections.abc import Callable
from dataclasses import replace

from myna.apps.agent.agent import Agent
from myna.apps.agent.own import own_tools
from myna.apps.agent.session import Session
from myna.apps.agent.team import Work
from myna.apps.tools import Approvals, Ask, Dispatcher, Tool, this_call
from myna.apps.tools.tool import canonical
from myna.records import Json
from myna.trace import Trace

Keep = Callable[[Session], None]


def desk_of(
    agent: Agent, session: Session, work: Work, approvals: Approvals, ask: Ask, keep: Keep, trace: Trace | None
) -> Dispatcher:
    """The dispatcher of a run. `work` runs a helper; `keep` writes the session down."""
    tools = (*agent.tools, *own_tools(agent, session, work))
    tools = tuple(tool if tool.effect == "read" else _kept(tool, session, keep) for tool in tools)
    tools = tuple(_seen(tool, trace) for tool in tools) if trace else tools
    return Dispatcher(tools, approvals, ask, session.run)


def _kept(tool: Tool, session: Session, keep: Keep) -> Tool:
    """The tool, after it is written down that it begins: a call that waited waits no longer."""

    async def work(arguments: Json) -> str:
        session.waiting.discard(this_call().id)
        keep(session)
        return await tool.run(arguments)

    return replace(tool, run=work)


def _seen(tool: Tool, trace: Trace) -> Tool:
    """The tool, with a span around its work; what happens inside of it is below that."""

    async def work(arguments: Json) -> str:
        with trace.span("tool", tool.name, arguments=canonical(arguments), effect=tool.effect) as span:
            result = await tool.run(arguments)
            span.note(result=result)
            return result

    return replace(tool, run=work)
