"""A help desk: what is meant, what is asked, an answer, a critique, and where that is bad another answer.

myna flow run examples/desk/flow.py -v question="How do I start a server?"
myna flow run examples/desk/flow.py --cases examples/desk/cases.jsonl && myna flow report
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from myna.apps.flow import flow, step
from myna.apps.prompt import Prompt, ask
from myna.checks import Verdict
from myna.provider import Provider
from myna.records import Candidate, Conversation

HERE = Path(__file__).parent
FACTS = (HERE / "facts.md").read_text(encoding="utf-8")
INTENT, REWRITE, ANSWER, CRITIQUE = (
    Prompt.read(HERE / f"prompts/{name}.md") for name in ("intent", "rewrite", "answer", "critique")
)
ROUNDS = 2  # answers at most
CHINESE = re.compile(r"[一-鿿]")
COMMAND = re.compile(r"`(myna(?: [a-z]+)+)")
COMMANDS = frozenset(COMMAND.findall(FACTS))
NO_QUESTION = {
    "complaint": ("I am sorry. A person will look at this.", "很抱歉,我们会请同事跟进。"),
    "smalltalk": ("Hello! What would you like to do with Myna?", "你好!你想用 Myna 做什么?"),
    "other": ("I can only help with Myna.", "我只能回答关于 Myna 的问题。"),
}

Kind = Literal["question", "complaint", "smalltalk", "other"]


@dataclass(frozen=True)
class Critique:
    """Whether an answer may stand, and what is wrong with it."""

    ok: bool
    wrong: str = ""


@dataclass(frozen=True)
class Reply:
    """What the desk says, and whether the critique let it pass; None where nothing was asked."""

    kind: Kind
    text: str
    passed: bool | None = None


def same_language(conversation: Conversation, candidate: Candidate) -> Verdict:
    """A Chinese message is answered in Chinese, another is not."""
    asked, said = (bool(CHINESE.search(one)) for one in (conversation.messages[-1].text, candidate.text))
    return Verdict.of(asked == said, "it is in another language")


@step(calls=INTENT.limits.calls)
async def intent(question: str, *, provider: Provider) -> Kind:
    kind: Kind = (await ask(INTENT, {"question": question}, provider)).value["kind"]
    return kind


@step(calls=REWRITE.limits.calls, checks={"language": same_language}, retry=1)
async def rewrite(question: str, *, provider: Provider) -> str:
    return str((await ask(REWRITE, {"question": question}, provider)).value["question"])


@step(calls=ANSWER.limits.calls, retry=1)
async def answer(question: str, wrong: str | None, *, provider: Provider) -> str:
    return (await ask(ANSWER, {"facts": FACTS, "question": question, "wrong": wrong}, provider)).text


@step(calls=CRITIQUE.limits.calls)
async def critique(question: str, text: str, *, provider: Provider) -> Critique:
    """What can be looked up is not asked: a command that no fact has is made up."""
    for command in COMMAND.findall(text):
        if not any(f"{command} ".startswith(f"{known} ") for known in COMMANDS):
            return Critique(False, f"there is no command {command}")
    said = (await ask(CRITIQUE, {"facts": FACTS, "question": question, "answer": text}, provider)).value["verdict"]
    return Critique(True) if said == "right" else Critique(False, said)


@flow(max_calls=intent.max_calls + rewrite.max_calls + ROUNDS * (answer.max_calls + critique.max_calls))
async def desk(question: str, *, provider: Provider) -> Reply:
    kind = await intent(question, provider=provider)
    if kind != "question":
        return Reply(kind, NO_QUESTION[kind][bool(CHINESE.search(question))])
    asked = await rewrite(question, provider=provider)
    wrong = None
    for _ in range(ROUNDS):
        text = await answer(asked, wrong, provider=provider)
        found = await critique(asked, text, provider=provider)
        if found.ok:
            break
        wrong = found.wrong
    return Reply(kind, text, found.ok)
