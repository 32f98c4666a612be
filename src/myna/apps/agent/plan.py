"""A plan that the agent makes and keeps: items, each with how one sees that it is done. An item is done when its evidence stands, word
for word, in a result of a tool; a model's word that it did something is not enough.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

from myna.apps.tools import Tool, tool
from myna.records import Json, ToolError
from myna.records.fields import Fields

if TYPE_CHECKING:
    from myna.apps.agent.session import Session

State = Literal["open", "done", "dropped"]
MOST = 30  # items
LONGEST = 500  # characters of an item, of its check, of its evidence


@dataclass(slots=True)
class Item:
    """`check`: how one sees that it is done. `said`: the evidence, or why it was dropped."""

    what: str
    check: str
    state: State = "open"
    said: str = ""

    @classmethod
    def from_json(cls, value: object, path: str) -> "Item":
        f = Fields(value, path)
        state: State = f.take("state", str, default="open")
        known: State = state if state in get_args(State) else "open"
        return cls(f.take("what", str), f.take("check", str), known, f.take("said", str, default=""))

    def to_json(self) -> Json:
        return asdict(self)


def shown(plan: Sequence[Item]) -> str:
    marks = {"open": " ", "done": "x", "dropped": "-"}
    return "\n".join(
        f"{number}. [{marks[item.state]}] {item.what} (check: {item.check})" + (f": {item.said}" if item.said else "")
        for number, item in enumerate(plan, 1)
    )


def plan_tools(session: "Session") -> tuple[Tool, ...]:
    """Tools over a session's plan. They change nothing else."""

    @tool(effect="read")
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

    @tool(effect="read")
    async def step_done(step: int, evidence: str) -> str:
        """Mark a step of the plan as done.

        Args:
            step: Its number, from 1.
            evidence: Copied word for word from a tool's result that shows it.
        """
        item = _item(session.plan, step)
        results = [one.text for one in session.messages if one.role == "tool" and one.meta.get("status") == "ok"]
        if not evidence.strip() or not any(evidence.strip() in text for text in results):
            raise ToolError(
                f"No tool's result holds {evidence[:200]!r}. Step {step} stays open; its check: {item.check}"
            )
        item.state, item.said = "done", evidence.strip()[:LONGEST]
        return shown(session.plan)

    @tool(effect="read")
    async def drop_step(step: int, why: str) -> str:
        """Give up a step of the plan.

        Args:
            step: Its number, from 1.
            why: The reason, which the user is told.
        """
        item = _item(session.plan, step)
        item.state, item.said = "dropped", why[:LONGEST]
        return shown(session.plan)

    return make_plan, step_done, drop_step


OWN = ("make_plan", "step_done", "drop_step")


def _item(plan: list[Item], number: int) -> Item:
    if not 1 <= number <= len(plan):
        raise ToolError(f"There is no step {number}; the plan has {len(plan)}. make_plan makes one.")
    return plan[number - 1]
