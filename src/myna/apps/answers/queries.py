"""What is searched for: a follow-up made to stand on its own, and the same question in other words."""

from collections.abc import Sequence
from dataclasses import dataclass

from myna.provider import Provider, complete
from myna.records import Conversation, Sampling
from myna.records.fence import RULE, fenced

MOST = 4  # other ways to ask
LONGEST = 400  # characters of one
TURNS = 6  # of the conversation that a follow-up is read with
CLAMP = 1_000  # characters of each
ASKS = ("?", "？")
DRAW = Sampling(temperature=0.0, max_tokens=160)


@dataclass(frozen=True, slots=True)
class Turn:
    """What was asked, and what was answered."""

    question: str
    answer: str


async def alone(provider: Provider, question: str, before: Sequence[Turn]) -> str:
    """The question with what it leaves to the conversation: "And when?" becomes "When was the bridge built?". One call, where there
    was a conversation; a rewriting that is empty, too long, or no question where the user asked one is not taken: small models answer instead.
    Raises what the provider raises."""
    if not before:
        return question
    system = (
        f"Rewrite the user's last question so that it can be understood without the conversation: put in the names that its words stand "
        f"for. Keep its language. If it can be understood already, repeat it as it is. Answer with the question alone. {RULE}"
    )
    said = [{"question": one.question[:CLAMP], "answer": one.answer[:CLAMP]} for one in before[-TURNS:]]
    user = f"{fenced(said, 'conversation')}\n\nLast question: {question}"
    reply = await complete(provider, Conversation.of(("system", system), ("user", user)), DRAW)
    rewritten = " ".join(reply.text.split()).strip("\"'“”")
    answered = question.rstrip().endswith(ASKS) and not rewritten.endswith(ASKS)
    return rewritten if 0 < len(rewritten) <= LONGEST and not answered else question


async def ways(provider: Provider, question: str, count: int) -> tuple[str, ...]:
    """The question, and at most `count` other ways to ask it. One call, where any are wanted. Raises what the provider raises."""
    if count < 1:
        return (question,)
    system = (
        f"Write {min(count, MOST)} search queries that would find documents which answer the question: other words for the same, parts of "
        "it, what the document would be called. One a line, nothing else, in the language of the question."
    )
    reply = await complete(provider, Conversation.of(("system", system), ("user", question)), DRAW)
    lines = (line.strip(' \t-*•0123456789.、)）"“”') for line in reply.text.splitlines())
    others = [line for line in lines if 0 < len(line) <= LONGEST]
    return tuple(dict.fromkeys((question, *others[: min(count, MOST)])))
