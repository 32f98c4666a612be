"""The tools that an agent has of itself: its plan, what it pins, its memory, its helpers. They are made for one session."""

from collections.abc import Iterator
from itertools import takewhile

from myna.apps.agent.agent import Agent
from myna.apps.agent.memory import Memory, MemoryFileError, Remembered
from myna.apps.agent.plan import LONGEST, MOST, Item, item, shown, shows
from myna.apps.agent.session import Session
from myna.apps.agent.team import Work, helper_tool
from myna.apps.tools import Tool, Untrusted, tool
from myna.records import Message, ToolError
from myna.records.fence import fenced

RECALLED = 5  # memories at once
PINNED = 20  # facts of a session
WORDS = ("make_plan", "step_done", "drop_step", "pin", "remember")  # tools whose results are what the agent said itself


def own_tools(agent: Agent, session: Session, work: Work) -> tuple[Tool, ...]:
    """What belongs to this agent, bound to this session. `work` runs a helper."""
    tools = plan_tools(session) if agent.plan else ()
    tools += (pin_tool(session),) if agent.plan or agent.window else ()
    tools += memory_tools(agent.memory, session) if agent.memory else ()
    return tools + tuple(helper_tool(helper, session, work) for helper in agent.helpers)


def plan_tools(session: Session) -> tuple[Tool, ...]:
    """Tools over a session's plan. They change nothing else."""

    @tool(effect="read", egress=False)
    async def make_plan(steps: list[str], checks: list[str]) -> str:
        """Write down what you will do, in order, before you do it. It replaces an earlier plan.

        Args:
            steps: What to do, one thing each.
            checks: For each step, what a tool will show once it is done.
        """
        if len(steps) != len(checks) or not 1 <= len(steps) <= MOST:
            raise ToolError(
                f"{len(steps)} steps and {len(checks)} checks; give one check a step, and 1 to {MOST} steps"
            )
        session.plan = [Item(what[:LONGEST], check[:LONGEST]) for what, check in zip(steps, checks, strict=True)]
        return shown(session.plan)

    @tool(effect="read", egress=False)
    async def step_done(step: int, evidence: str) -> str:
        """Mark a step of the plan as done.

        Args:
            step: Its number, from 1.
            evidence: Copied word for word from a tool's result that shows it.
        """
        one = item(session.plan, step)
        if not shows(evidence, _given(session)):
            raise ToolError(
                f"No tool has given {evidence[:200]!r} since the plan was made. Step {step} stays open; its check: {one.check}"
            )
        one.state, one.said = "done", evidence.strip()[:LONGEST]
        return shown(session.plan)

    @tool(effect="read", egress=False)
    async def drop_step(step: int, why: str) -> str:
        """Give up a step of the plan.

        Args:
            step: Its number, from 1.
            why: The reason, which the user is told.
        """
        one = item(session.plan, step)
        one.state, one.said = "dropped", why[:LONGEST]
        return shown(session.plan)

    return make_plan, step_done, drop_step


def _given(session: Session) -> Iterator[str]:
    """What tools gave since the plan was made; not what an agent's own tools said, which repeat its own words."""
    ran = (one for one in reversed(session.messages) if one.role == "tool" and one.meta.get("status") == "ok")
    for message in takewhile(lambda one: one.name != "make_plan", ran):
        if message.name not in WORDS:
            yield message.text


def pin_tool(session: Session) -> Tool:
    @tool(effect="read", egress=False)
    async def pin(fact: str) -> str:
        """Keep a fact that you will need until the end, when older messages are shortened.

        Args:
            fact: One sentence, with its numbers and names exactly as they are.
        """
        if len(session.facts) >= PINNED:
            raise ToolError(f"{PINNED} facts are pinned, and more are not kept.")
        session.facts.append(fact[:LONGEST])
        return f"{len(session.facts)} pinned"

    return pin


def memory_tools(memory: Memory, session: Session) -> tuple[Tool, ...]:
    """Writing to it is a write: after a stranger's text it asks, and what is written then is tainted for good."""

    @tool(effect="write")
    async def remember(text: str, about: str = "") -> str:
        """Keep something beyond this conversation.

        Args:
            text: One sentence that says it all by itself.
            about: Its subject, such as "user's city"; what was remembered about the same subject is replaced.
        """
        try:
            kept = await memory.remember(
                text, about=about, source=f"run {session.run}", tainted=session.tainted, documents=session.documents
            )
        except MemoryFileError as e:
            raise ToolError(str(e)) from None
        return f"remembered as {kept.id}"

    @tool(effect="read", egress=False)
    async def recall(query: str) -> str:
        """Look up what you remember from earlier conversations.

        Args:
            query: What it is about.
        """
        found = await memory.recall(query, RECALLED)
        text = listed(found) or "Nothing is remembered about that."
        return Untrusted(text, drawn(found)) if any(one.tainted for one in found) else text

    @tool(effect="write")
    async def forget(id: int) -> str:
        """Forget something for good.

        Args:
            id: Its number, as recall shows it.
        """
        try:
            return f"{memory.forget(id)} forgotten"
        except MemoryFileError as e:
            raise ToolError(str(e)) from None

    return remember, recall, forget


def drawn(found: list[Remembered]) -> set[str]:
    """The documents that these memories may be from."""
    return {document for one in found for document in one.documents}


def listed(found: list[Remembered]) -> str:
    return "\n".join(f"{one.id}. {one.text}" for one in found)


async def reminded(memory: Memory, session: Session) -> None:
    """Put what has to do with a new session's task before it. What is tainted taints it."""
    if len(session.messages) != 1:
        return
    found = await memory.recall(session.messages[0].text, RECALLED)
    if not found:
        return
    session.tainted |= any(one.tainted for one in found)
    session.documents |= drawn(found)
    task = session.messages[0]
    text = f"You remember from earlier:\n{fenced(listed(found), 'memories')}\n\n{task.text}"
    session.messages[0] = Message("user", text, meta={**task.meta, "recalled": [one.id for one in found]})
