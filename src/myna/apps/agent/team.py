"""An agent as a tool of another. What it spends, its caller has spent; what taints it, taints its caller; where it waits for an
approval, its caller waits."""

from collections.abc import Awaitable, Callable

from myna.apps.agent.agent import Agent, Ended
from myna.apps.agent.session import Session
from myna.apps.tools import Tool, Untrusted, Waits, this_call, tool

Work = Callable[[Agent, Session], Awaitable[Ended]]
SPARE = 5.0  # seconds beside its own for it to end by itself


def helper_tool(helper: Agent, session: Session, work: Work) -> Tool:
    """`work` runs the helper on a session, within the caller's budget. What the helper itself does asks for itself, so the call
    changes nothing and is a read."""

    async def run(task: str) -> str:
        call = this_call()
        child = session.children.get(call.id)
        if child is None:
            child = Session.of(task, tainted=session.tainted)
            child.run, child.documents = f"{session.run}/{call.id}", {*session.documents}
            session.children[call.id] = child
        ended = await work(helper, child)
        if ended.reason == "approval":
            raise Waits
        del session.children[call.id]
        text = (
            ended.answer
            if ended.reason == "done"
            else f"[{helper.name} ended with {ended.reason}: {ended.detail}]\n{ended.answer}"
        )
        return Untrusted(text, child.documents) if ended.tainted else text

    run.__doc__ = f"{helper.about or helper.instructions[:300] or helper.name}\n\nArgs:\n    task: All it needs to know; it sees nothing else."
    return tool(effect="read", egress=False, name=helper.name, timeout=(helper.bounds.seconds or 0) + SPARE)(run)
