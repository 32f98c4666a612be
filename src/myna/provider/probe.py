"""What an endpoint does, tried and not believed: what each question would plainly be answered with breaks what is asked of it.

    powers = await probe(provider)
    powers.forms             the kinds of form that held

Servers drop a field that they do not know and answer as if it had not been there. Whoever builds on such a promise must try it
once, and look at the answer.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

from myna.provider import Provider, complete
from myna.provider.powers import Powers
from myna.records import Conversation, Form, MynaError, ProviderError, Reply, Sampling, ToolChoice, Usage
from myna.records.form import Kind

CALLS = 11  # at most
SECONDS = 300.0  # that one of them may take: a slow machine may still be loading the model
GREET = Conversation.ask("Say hello to Ann in one short sentence.")
GREEDY = Sampling(temperature=0.0, max_tokens=60)
CODES = ["zq-71", "kw-38"]
SCHEMA = {
    "type": "object",
    "properties": {"code": {"enum": CODES}, "count": {"type": "integer", "minimum": 900, "maximum": 999}},
    "required": ["code", "count"],
    "additionalProperties": False,
}
DIGITS = "[3-7]{6}z"
# Of structural tags nothing can be tried: an answer without any keeps them.
FORMS: dict[Kind, Form] = {
    "json": Form("json"),
    "schema": Form("schema", json.dumps(SCHEMA)),
    "regex": Form("regex", DIGITS),
    "choice": Form("choice", json.dumps(CODES)),
    "grammar": Form("grammar", 'start: ("<7>" | "<3>") "#"'),
}
TOOL = {
    "type": "function",
    "function": {"name": "file_report", "description": "Files a report.", "parameters": SCHEMA, "strict": True},
}
GREET_WITH_TOOL = replace(GREET, tools=(TOOL,))


async def probe(provider: Provider) -> Powers:
    """Try everything, in at most CALLS calls of at most 60 tokens each. Raises ProviderError where not even a plain question is
    answered; what else goes wrong is a power that the endpoint does not have, and is told in `refused`."""
    tries = _Tries(provider)
    plain = await tries.plain()
    forms = tuple([kind for kind, form in FORMS.items() if await tries.held(kind, replace(GREEDY, form=form))])
    called = await tries.ask("tools", replace(GREEDY, tool_choice=ToolChoice("required")), GREET_WITH_TOOL)
    two = await tries.ask("several", Sampling(temperature=1.0, max_tokens=8, n=2))
    told = await tries.ask("logprobs", replace(GREEDY, max_tokens=4, logprobs=2))
    drawn = [await tries.ask("seed", Sampling(temperature=1.5, max_tokens=12, seed=7)) for _ in range(2)]
    return Powers(
        forms=forms,
        tools=bool(called and called.message.tool_calls),
        arguments=bool(called and called.message.tool_calls and _fits(called.message.tool_calls[0].arguments)),
        logprobs=_alternatives(told),
        several=bool(two and len(two.candidates) == 2 and all(one.text for one in two.candidates)),
        seed=all(one and one.text for one in drawn) and len({one.text for one in drawn if one}) == 1,
        usage=plain.usage != Usage(),
        tried=time.time(),
        refused=tries.refused,
    )


@dataclass
class _Tries:
    """Asks, and remembers what was refused."""

    provider: Provider
    refused: dict[str, str] = field(default_factory=dict)

    async def plain(self) -> Reply:
        try:
            async with asyncio.timeout(SECONDS):
                return await complete(self.provider, GREET, GREEDY)
        except TimeoutError:
            raise ProviderError(f"{self.provider.name} gave no answer within {SECONDS:g} seconds.") from None

    async def ask(self, what: str, sampling: Sampling, conversation: Conversation = GREET) -> Reply | None:
        try:
            async with asyncio.timeout(SECONDS):
                return await complete(self.provider, conversation, sampling)
        except TimeoutError:
            self.refused[what] = f"no answer within {SECONDS:g} seconds"
        except MynaError as e:
            self.refused[what] = str(e)[:200]
        return None

    async def held(self, kind: Kind, sampling: Sampling) -> bool:
        reply = await self.ask(kind, sampling)
        if reply is not None and not (kept := _keeps(kind, reply.text)):
            self.refused[kind] = f"answered {reply.text[:60]!r}"
        return reply is not None and kept


def _keeps(kind: Kind, text: str) -> bool:
    match kind:
        case "json":
            return isinstance(_json(text), dict)
        case "schema":
            return _fits(text)
        case "regex":
            return re.fullmatch(DIGITS, text) is not None
        case "choice":
            return text in CODES
        case _:
            return text in ("<7>#", "<3>#")


def _fits(text: str) -> bool:
    """Whether this is an object of SCHEMA."""
    match _json(text):
        case {"code": str(code), "count": int(count), **rest}:
            return code in CODES and 900 <= count <= 999 and not rest
    return False


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _alternatives(reply: Reply | None) -> int:
    """Of how many alternatives the first token's log-probability came; 0 where none did."""
    if reply is None or not reply.sampled or not reply.sampled[0] or reply.sampled[0][0].logprob is None:
        return 0
    return max(1, len(reply.sampled[0][0].top))
