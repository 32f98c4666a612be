"""The tools that an agent has of itself: its plan, what it pins, its memory, its helpers. They are made for one session."""

from typing import TYPE_CHECKING

from myna.apps.agent.memory import Memory, MemoryFileError, Remembered
from myna.apps.agent.plan import plan_tools
from myna.apps.agent.session import Session
from myna.apps.agent.team import Work, helper_tool
from myna.apps.tools import Tool, Untrusted, tool
from myna.records import Message, ToolError
from myna.records.fence import fenced

if TYPE_CHECKING:
    from myna.apps.agent.agent import Agent

RECALLED = 5  # memories at once
PINNED, LONGEST = 20, 500  # facts of a session, characters of one


def own_tools(agent: "Agent", session: Session, work: Work) -> tuple[Tool, ...]:
    """What belongs to this agent, bound to this session. `work` runs a helper."""
    tools = plan_tools(session) if agent.plan else ()
    tools += (pin_tool(session),) if agent.plan or agent.window else ()
    tools += memory_tools(agent.memory, session) if agent.memory else ()
    return tools + tuple(helper_tool(helper, session, work) for helper in agent.helpers)


def pin_tool(session: Session) -> Tool:
    @tool(effect="read")
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
            kept = await memory.remember(text, about=about, source=f"run {session.run}", tainted=session.tainted)
        except MemoryFileError as e:
            raise ToolError(str(e)) from None
        return f"remembered as {kept.id}"

    @tool(effect="read")
    async def recall(query: str) -> str:
        """Look up what you remember from earlier conversations.

        Args:
            query: What it is about.
        """
        found = await memory.recall(query, RECALLED)
        text = listed(found) or "Nothing is remembered about that."
        return Untrusted(text) if any(one.tainted for one in found) else text

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
    task = session.messages[0]
    text = f"You remember from earlier:\n{fenced(listed(found), 'memories')}\n\n{task.text}"
    session.messages[0] = Message("user", text, meta={**task.meta, "recalled": [one.id for one in found]})
