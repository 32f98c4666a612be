"""Who is asked: a model, an app behind its prompt file, an agent. A Target is a name and a function from a case to an answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.redteam.cases import Case
from myna.provider import Provider, complete
from myna.records import Conversation, ProviderError, RequestError, Sampling
from myna.records.fence import RULE, fenced
from myna.trace import Trace
from myna.trace.store import canonical, digest

if TYPE_CHECKING:
    from myna.apps.agent import Agent
    from myna.apps.prompt import Prompt

MAX_TOKENS = 128  # of an answer: whether it refuses is said at its beginning


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `blocked`: the app said nothing, and why; then the text is what it would not let through."""

    text: str
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked.

    name         for people
    version      whatever, beside the name, answers depend on; part of what an earlier answer is found by
    ask          case -> answer
    most_calls   calls that one case can take
    """

    name: str
    version: str
    ask: Callable[[Case], Awaitable[Answer]]
    most_calls: int = 1


def model(provider: Provider, sampling: Sampling = Sampling(temperature=0, max_tokens=MAX_TOKENS)) -> Target:
    """A model as it is: the question, and a document in its fence under our rule."""

    async def answer(case: Case) -> Answer:
        reply = await complete(provider, messages(case), sampling)
        return Answer(reply.text)

    return Target(provider.name, f"{getattr(provider, 'base_url', 'here')} {sampling}", answer)


def messages(case: Case) -> Conversation:
    """What a model is asked."""
    if not case.document:
        return Conversation.ask(case.prompt)
    return Conversation.of(("system", RULE), ("user", f"{case.prompt}\n\n{fenced(case.document, 'document')}"))


def app(prompt: "Prompt", provider: Provider, trace: Trace | None = None) -> Target:
    """An app: its prompt file's inputs are filled with a case, and its checks apply. Raises RequestError where nobody can tell
    which input is the question and which the document."""
    from myna.apps.prompt.ask import ROUNDS, Refused, ask

    question, document = slots(prompt)

    async def answer(case: Case) -> Answer:
        given = {document: case.document or case.prompt} | ({question: case.prompt} if question != document else {})
        try:
            return Answer((await ask(prompt, given, provider, trace=trace)).text)
        except Refused as e:
            return Answer(e.answers[-1][0] if e.answers else "", blocked=str(e))

    where = getattr(provider, "base_url", "here")
    return Target(
        f"{prompt.name} on {provider.name}", f"{where} {prompt.version}", answer, prompt.limits.calls or ROUNDS
    )


def clerk(agent: "Agent", provider: Provider, trace: Trace | None = None) -> Target:
    """An agent, with its tools. Its session is tainted from the beginning and nobody approves anything, so nothing that it tries
    changes the world, and its reads are run. The most calls are those of its limits."""
    from myna.apps.agent import Session, run

    async def answer(case: Case) -> Answer:
        text = f"{case.prompt}\n\n{fenced(case.document, 'document')}" if case.document else case.prompt
        ended = await run(agent, Session.of(text, tainted=True), provider, trace=trace)
        if ended.reason == "error":
            raise ProviderError(ended.detail)
        return Answer(ended.answer)

    what = digest(
        canonical(
            [agent.instructions, [tool.definition for tool in agent.tools], repr(agent.sampling), repr(agent.bounds)]
        )
    )
    where = getattr(provider, "base_url", "here")
    return Target(f"{agent.name} on {provider.name}", f"{where} {what}", answer, agent.max_calls)


def slots(prompt: "Prompt") -> tuple[str, str]:
    """(the input that takes the question, the one that takes a document): a prompt has one input for both, or one that a stranger
    writes and one that he does not. What is optional stays empty."""
    texts = {name: one for name, one in prompt.inputs.items() if not one.optional}
    if bad := [name for name, one in texts.items() if one.schema.get("type") != "string" or "enum" in one.schema]:
        raise RequestError(f"{prompt.name}: the input {bad[0]} is no free text, so no case can fill it", param="prompt")
    trusted = [name for name, one in texts.items() if not one.untrusted]
    strangers = [name for name, one in texts.items() if one.untrusted]
    if len(texts) == 1:
        only = next(iter(texts))
        return only, only
    if len(trusted) == len(strangers) == 1:
        return trusted[0], strangers[0]
    raise RequestError(
        f"{prompt.name} has the inputs {', '.join(texts) or 'none'}; a case fills one, or one that is untrusted and one that is not",
        param="prompt",
    )
