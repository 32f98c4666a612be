"""What an agent knows in the middle of its work: the conversation, whether a stranger's text is in it, what is spent.

It can be written down and read back. Whoever brings one from elsewhere can put anything in it, so one that is read is tainted unless
it comes out of a file of ours (runs.py), and no approval is ever in it: those are the Approvals file's alone.
"""

import json
import uuid
from dataclasses import dataclass, field, replace

from myna.apps.agent.plan import Item
from myna.apps.tools import Outcome
from myna.apps.tools.arguments import MOST_ARGUMENTS
from myna.records import DataError, Json, Message, Role, ToolCall
from myna.records.fence import fenced, outside
from myna.records.fields import Fields

DOUBT = "error: this call was interrupted. Whether it had its effect is not known."
NUDGE = "Your last answer was empty. Call a tool, or give your answer."


@dataclass
class Session:
    """
    messages  all of them, without the system prompt. A tool's message has its outcome's status in `meta`, and a user's turn that may be
              a stranger's is marked there as "foreign"
    run       what approvals are bound to
    tainted   a stranger's text is in the messages
    documents sha256 of those of an index that it is from, as far as the tools say
    waiting   ids of calls that wait for an approval
    spent     in all runs so far
    facts     what is never told in short
    plan      see plan.py
    start     messages before it are told in short, in `summary`, but for the first
    children  sessions of helpers that wait for an approval, by the id of the call
    """

    messages: list[Message]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    tainted: bool = False
    documents: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    spent: dict[str, float] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    plan: list[Item] = field(default_factory=list)
    start: int = 0
    summary: str = ""
    children: dict[str, "Session"] = field(default_factory=dict)

    @classmethod
    def of(cls, task: str, *, tainted: bool = False) -> "Session":
        """A task to begin with. `tainted`: text of unknown origin is in it."""
        return cls([_turn("user", task, tainted)], tainted=tainted)

    def say(self, text: str, *, tainted: bool = False, role: Role = "user") -> None:
        """One more turn, before it is run again."""
        self.messages.append(_turn(role, text, tainted))
        self.tainted |= tainted

    @property
    def own_words(self) -> str:
        """What the user wrote: his turns, without the strangers' texts that stand in their fences."""
        his = (one for one in self.messages if one.role == "user" and not one.meta.get("foreign"))
        return "\n".join(outside(one.text) for one in his)

    @property
    def open(self) -> list[ToolCall]:
        """Calls of the last turn that have no result."""
        at = self._last_turn()
        if at is None:
            return []
        answered = {message.tool_call_id for message in self.messages[at + 1 :]}
        return [call for call in self.messages[at].tool_calls if call.id not in answered]

    def turn(self, message: Message, finish: str | None) -> Message:
        """Take the model's turn, with ids that are there once; an empty one becomes a word from us. The message as it is kept."""
        if not (message.text.strip() or message.tool_calls or finish == "length"):
            self.messages.append(Message("user", NUDGE, meta={"empty": True}))
            return message
        taken = {call.id for one in self.messages for call in one.tool_calls}
        calls: list[ToolCall] = []
        for call in message.tool_calls:
            id = call.id if call.id and call.id not in taken else f"call_{len(taken) + 1}_{uuid.uuid4().hex[:8]}"
            taken.add(id)
            calls.append(ToolCall(id, call.name, _kept(call.arguments)))
        same = tuple(calls) == message.tool_calls
        meta = {"finish": finish} if finish == "length" else {}
        kept = replace(message, tool_calls=tuple(calls), tokens=message.tokens if same else None, meta=meta)
        self.messages.append(kept)
        return kept

    def take(self, outcome: Outcome) -> None:
        """What became of an open call."""
        if outcome.status == "waiting":
            self.waiting.add(outcome.call.id)
            return
        self.waiting.discard(outcome.call.id)
        self.tainted |= outcome.untrusted
        self.documents |= outcome.documents
        text = fenced(outcome.result, outcome.call.name) if outcome.untrusted else outcome.result
        effect = outcome.tool.effect if outcome.tool else "read"
        self._answer(replace(outcome.message, content=text, meta={"status": outcome.status, "effect": effect}))

    def settle(self) -> None:
        """Every open call that waits for nobody was interrupted, and its result says so."""
        for call in self.open:
            if call.id not in self.waiting:
                self.children.pop(call.id, None)
                self._answer(
                    Message("tool", DOUBT, tool_call_id=call.id, name=call.name, meta={"status": "interrupted"})
                )

    def _answer(self, result: Message) -> None:
        """Results stand in the order of their calls, whenever they come."""
        at = self._last_turn()
        assert at is not None
        order = {call.id: i for i, call in enumerate(self.messages[at].tool_calls)}
        results = [*self.messages[at + 1 :], result]
        self.messages[at + 1 :] = sorted(results, key=lambda one: order.get(one.tool_call_id or "", len(order)))

    def _last_turn(self) -> int | None:
        turns = (i for i in reversed(range(len(self.messages))) if self.messages[i].role == "assistant")
        return next(turns, None)

    def to_json(self) -> Json:
        return {
            "run": self.run,
            "tainted": self.tainted,
            "documents": sorted(self.documents),
            "waiting": sorted(self.waiting),
            "spent": self.spent,
            "facts": self.facts,
            "plan": [item.to_json() for item in self.plan],
            "start": self.start,
            "summary": self.summary,
            "children": {id: child.to_json() for id, child in self.children.items()},
            "messages": [message.to_json() for message in self.messages],
        }

    @classmethod
    def from_json(cls, value: object, *, ours: bool = False) -> "Session":
        """Raises DataError. `ours`: nobody else could have written it; else it is tainted, whatever it says."""
        f = Fields(value, "session")
        told = f.take("tainted", bool, default=True)
        messages = [*f.take_list("messages", Message.from_json, required=True)]
        if not messages:
            raise DataError("session.messages: there is none")
        if not ours:
            messages = [replace(one, meta={**one.meta, "foreign": True}) for one in messages]
        children = f.take("children", dict, default={}).items()
        return cls(
            messages=messages,
            run=f.take("run", str),
            tainted=told or not ours,
            documents={str(one) for one in f.take("documents", list, default=[])},
            waiting={str(one) for one in f.take("waiting", list, default=[])},
            spent={name: max(float(spent), 0.0) for name, spent in f.take("spent", dict, default={}).items()},
            facts=[str(one) for one in f.take("facts", list, default=[])],
            plan=[*f.take_list("plan", Item.from_json)],
            start=min(max(f.take("start", int, default=0), 0), len(messages)),
            summary=f.take("summary", str, default=""),
            children={str(id): cls.from_json(child, ours=ours) for id, child in children},
        )


def _turn(role: Role, text: str, foreign: bool) -> Message:
    return Message(role, text, meta={"foreign": True} if foreign else {})


def _kept(arguments: str) -> str:
    """Arguments as the conversation carries them: what no tool would take is not sent back a hundred times."""
    if len(arguments) <= MOST_ARGUMENTS:
        return arguments
    return json.dumps({"cut": f"{len(arguments):,} characters; {MOST_ARGUMENTS:,} are the most, and nothing was run"})
