"""The one place that runs tools. A call of a model's goes through it or nowhere:

    arguments read and checked -> effect, taint, approval -> run with a timeout -> a result of bounded size

Reads that stand together run at once; a write waits for all before it, and what follows waits for the write. Outcomes come in the
order of the calls. Each is a value: whoever dispatches records it.
"""

import asyncio
import json
import logging
import os
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from myna.apps.tools.approvals import Approvals, Ask, never
from myna.apps.tools.arguments import addressed, parse
from myna.apps.tools.tool import Tool, Untrusted, Waits, canonical
from myna.records import Json, Message, MynaError, ToolCall, ToolError

log = logging.getLogger(__name__)

Status = Literal["ok", "error", "failed", "timeout", "invalid", "unknown", "refused", "waiting"]
"""ok: it ran. error: it ran and said ToolError. failed: it broke, which is a bug of the tool's. timeout: given up.
The others never ran: invalid arguments, an unknown name, a refusal, a question that waits for its answer."""

MOST_CALLS = 64  # of one message
MOST_AT_ONCE = 8  # reads
GRACE = 1.0  # seconds for a tool that was given up to clean up after itself
MOST_SAID = 2000  # characters of an error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call. `result` is what the model is shown, `cut` the characters of the tool's text left out of it,
    `approval` the id of the approval it used up; `foreign`: the tool said of this very result that it is a stranger's (Untrusted).
    `untrusted`: the result is a stranger's text, and taints what it enters; `documents`: the sha256 of those that it is from."""

    call: ToolCall
    tool: Tool | None
    status: Status
    result: str
    seconds: float = 0.0
    cut: int = 0
    approval: str | None = None
    foreign: bool = False
    documents: frozenset[str] = frozenset()

    @property
    def ran(self) -> bool:
        """Whether the tool was started, so that it may have had its effect."""
        return self.status in ("ok", "error", "failed", "timeout")

    @property
    def untrusted(self) -> bool:
        return self.foreign or (self.ran and self.tool is not None and self.tool.untrusted)

    @property
    def message(self) -> Message:
        return Message("tool", self.result, tool_call_id=self.call.id, name=self.call.name)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A call that may be run, if its effect allows: the tool, and the arguments in their one spelling."""

    call: ToolCall
    tool: Tool
    arguments: str


@dataclass(frozen=True)
class Dispatcher:
    """Runs the calls of `tools`.

    approvals  where yes and no are kept; in memory by default
    ask        who decides; nobody by default, so that whatever must ask is refused
    run        the run that approvals belong to, so that none is good in another

    Raises MynaError when two tools have one name.
    """

    tools: tuple[Tool, ...]
    approvals: Approvals = field(default_factory=Approvals)
    ask: Ask = never
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            sources = ", ".join(tool.source or "?" for tool in self.tools if tool.name == twice[0])
            raise MynaError(f"two tools are called {twice[0]!r} ({sources}); give one of them another name")

    @property
    def schemas(self) -> tuple[Json, ...]:
        """For `Conversation.tools`."""
        return tuple(tool.schema for tool in self.tools)

    async def dispatch(self, calls: Sequence[ToolCall], *, tainted: bool) -> list[Outcome]:
        """All outcomes of a message's calls, in their order. `tainted`: untrusted text was in the context that wrote them."""
        return [outcome async for outcome in self.outcomes(calls, tainted=tainted)]

    async def outcomes(self, calls: Sequence[ToolCall], *, tainted: bool) -> AsyncGenerator[Outcome, None]:
        """Each outcome when it is known, in the order of the calls: a write's before the next call begins. So whoever records
        them as they come knows, when cancelled, what was done; a write that was running then is in doubt."""
        known = {tool.name: tool for tool in self.tools}
        first, rest = calls[:MOST_CALLS], calls[MOST_CALLS:]
        for reads, group in groupby(
            first, key=lambda call: call.name not in known or known[call.name].effect == "read"
        ):
            if reads:
                gate = asyncio.Semaphore(MOST_AT_ONCE)
                for outcome in await _together([self._through(gate, call, known, tainted) for call in group]):
                    yield outcome
            else:
                for call in group:
                    yield await self._one(call, known, tainted)
        for call in rest:
            said = f"error: a message may make {MOST_CALLS} calls; this one is beyond them and was not run."
            yield Outcome(call, known.get(call.name), "invalid", said)

    async def _through(self, gate: asyncio.Semaphore, call: ToolCall, known: dict[str, Tool], tainted: bool) -> Outcome:
        async with gate:
            return await self._one(call, known, tainted)

    async def _one(self, call: ToolCall, known: dict[str, Tool], tainted: bool) -> Outcome:
        ready = await _read(call, known)
        if isinstance(ready, Outcome):
            return ready
        approval = None
        if reason := _reason(ready, tainted):
            answer = await self._approved(ready, reason)
            if isinstance(answer, Outcome):
                return answer
            approval = answer
        return await _run(ready, approval)

    async def _approved(self, ready: _Ready, reason: str) -> str | Outcome:
        """The id of the approval that this call used up, or the outcome of having none."""
        bound = (self.run, ready.call, ready.tool, ready.arguments)
        if found := self.approvals.use(*bound):
            return found
        if self.approvals.refused(*bound):
            return Outcome(ready.call, ready.tool, "refused", REFUSED)
        asked = self.approvals.waiting_for(*bound) or self.approvals.ask(*bound, reason)
        answer = await self.ask(asked)
        if answer is None:
            return Outcome(ready.call, ready.tool, "waiting", WAITING)
        try:
            self.approvals.decide(asked.id, answer)
        except MynaError:  # answered elsewhere meanwhile, or too late: what the file says counts
            log.info("the answer about %s was not the first, or came too late", asked.tool)
        found = self.approvals.use(*bound) if answer else None
        return found or Outcome(ready.call, ready.tool, "refused", EXPIRED if answer else REFUSED)


REFUSED = "error: this call was refused, and was not run. Do not make it again; go on with the task without it."
EXPIRED = "error: the approval of this call expired or was changed before it could be used, and the call was not run."
WAITING = "This call waits for an approval, and was not run."

_CALL: ContextVar[ToolCall] = ContextVar("call")


def this_call() -> ToolCall:
    """The call whose tool asks. Raises LookupError outside of a dispatcher."""
    return _CALL.get()


def _reason(ready: _Ready, tainted: bool) -> str:
    """Why a call must ask, or "" where it need not. To read over a network is to send the arguments there, with whatever was put in
    them. A tool says whether it does that; of one that does not say, its arguments tell."""
    if ready.tool.effect == "danger":
        return "the tool is marked dangerous"
    if tainted and ready.tool.effect != "read":
        return "text of unknown origin is in the context, and may have asked for this"
    if tainted and ready.tool.egress:
        return "its arguments go out over the network, and text of unknown origin is in the context"
    if tainted and ready.tool.egress is None and addressed(json.loads(ready.arguments)):
        return "an address is in its arguments, which can carry out what was read, and text of unknown origin is in the context"
    return ""


async def _together(work: list[Any]) -> list[Outcome]:
    """All at once; where this is cancelled, so are they."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # what was running has stopped when this ends


async def _read(call: ToolCall, known: dict[str, Tool]) -> _Ready | Outcome:
    tool = known.get(call.name)
    if tool is None:
        names = ", ".join(known) or "none"
        return Outcome(
            call, None, "unknown", _cut(f"error: there is no tool {call.name[:64]!r}. There are: {names}", 4000)[0]
        )
    try:
        arguments = parse(call.arguments)
        text = canonical(arguments)
        problem = await tool.check(arguments)
    except (ValueError, RecursionError) as e:
        problem = f"they are no JSON object: {e}"
    if problem:
        said = f"error: the arguments of {tool.name} are not what it takes: {problem}"
        return Outcome(call, tool, "invalid", _cut(said, MOST_SAID)[0])
    return _Ready(call, tool, text)


async def _run(ready: _Ready, approval: str | None) -> Outcome:
    """Runs the tool on its own copy of exactly what was checked and approved."""
    tool, began, foreign, documents = ready.tool, time.monotonic(), False, frozenset[str]()
    task = asyncio.ensure_future(_caught(ready.call, tool, json.loads(ready.arguments)))
    try:
        await asyncio.wait({task}, timeout=tool.timeout)
        if task.done():
            status, text = _ended(task)
            if isinstance(text, Untrusted):
                foreign, documents = True, text.documents
        else:
            status, text = "timeout", _given_up(tool)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE)
            if not task.done():
                log.warning("%s goes on after it was cancelled", tool.name)
    result, cut = _cut(text, tool.cap if status == "ok" else min(tool.cap, MOST_SAID))
    return Outcome(ready.call, tool, status, result, time.monotonic() - began, cut, approval, foreign, documents)


async def _caught(call: ToolCall, tool: Tool, arguments: Json) -> tuple[Status, str]:
    _CALL.set(call)  # in a task of its own, so for this call alone
    try:
        text = await tool.run(arguments)
    except Waits:
        return "waiting", WAITING
    except ToolError as e:
        return "error", f"error: {e}"
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as e:  # exit() in a tool is no end of ours
        log.info("the tool %s failed", tool.name, exc_info=e)
        return "failed", f"error: {tool.name} failed: {type(e).__name__}: {_words(e)}{_place(e)}"
    if not isinstance(text, str):
        return "failed", f"error: {tool.name} failed: it returned {type(text).__name__}, not text"
    return "ok", text


def _words(e: BaseException) -> str:
    try:
        return str(e)
    except Exception:
        return "(it does not say why)"


def _place(e: BaseException) -> str:
    """Where it was raised, as " (tools.py:12)"."""
    frames = traceback.extract_tb(e.__traceback__)
    return f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


def _ended(task: asyncio.Task[tuple[Status, str]]) -> tuple[Status, str]:
    if task.cancelled():
        return "failed", "error: the tool cancelled itself"
    return task.result()


def _given_up(tool: Tool) -> str:
    doubt = "" if tool.effect == "read" else " Whether it had its effect is not known."
    return f"error: {tool.name} gave no answer within {tool.timeout:g} seconds and was given up.{doubt}"


def _cut(text: str, most: int) -> tuple[str, int]:
    """(at most so many characters and a sentence that says what is missing, how many are missing). Lone surrogates, which no
    message can carry, become question marks."""
    left = max(0, len(text) - most)
    kept = text[:most].encode(errors="replace").decode()
    return (f"{kept}\n[cut: {left} of {len(text)} characters are not shown]", left) if left else (kept, 0)
