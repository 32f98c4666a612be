"""What a provider answers: a stream of deltas, and the reply they fold into."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from myna.records.conversation import Candidate, Message, Tokens, ToolCall


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled token: its id (None when a remote endpoint did not say), its bytes, its log-probability, and the
    likeliest alternatives with theirs. Log-probabilities are the model's own, before temperature and penalties."""

    id: int | None
    piece: bytes
    logprob: float | None = None
    top: tuple["Sampled", ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts over all candidates. `cached_tokens` of the prompt were not computed again.

    queued, prefilled   seconds until its computation began, and from then to the first token; None where nobody measured.
                        They never make two answers differ
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queued: float | None = field(default=None, compare=False)
    prefilled: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a candidate's tool call number `index`. A call's first piece has its id and its name; the arguments of all
    its pieces, joined, are the call's."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    @classmethod
    def whole(cls, calls: Iterable[ToolCall]) -> tuple["CallPiece", ...]:
        """Calls in one piece each."""
        return tuple(cls(index, call.id, call.name, call.arguments) for index, call in enumerate(calls))


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of one candidate's answer. Text may lag tokens: half a character or a possible stop string is held back.

    `finish_reason` comes once per candidate ("stop", "length", "tool_calls"), with it `stop` if a stop string was met, and
    which; `usage` once, on the last delta of all. `flaw` comes with a finish_reason: in what the answer does not have the form
    that was asked for, which can only be where that form was not strict.
    """

    candidate: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[CallPiece, ...] = ()
    tokens: tuple[Sampled, ...] = ()
    finish_reason: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer: `candidates` in order, the tokens that were sampled for each, and what it cost."""

    candidates: tuple[Candidate, ...]
    sampled: tuple[tuple[Sampled, ...], ...] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def message(self) -> Message:
        """The first candidate's message with the tokens it was sampled as, ready to append to the conversation."""
        return replace(self.candidates[0].messages[-1], tokens=self.candidates[0].tokens)

    @property
    def text(self) -> str:
        return self.message.text


def fold(deltas: Iterable[Delta]) -> Reply:
    """The reply that a stream of deltas amounts to."""
    by_candidate: dict[int, list[Delta]] = {}
    usage = Usage()
    for delta in deltas:
        by_candidate.setdefault(delta.candidate, []).append(delta)
        usage = delta.usage or usage
    parts = [by_candidate[k] for k in sorted(by_candidate)]
    sampled = tuple(tuple(token for delta in part for token in delta.tokens) for part in parts)
    return Reply(tuple(_candidate(part, tokens) for part, tokens in zip(parts, sampled, strict=True)), sampled, usage)


def _join(pieces: Iterable[CallPiece]) -> tuple[ToolCall, ...]:
    calls: dict[int, ToolCall] = {}
    for piece in pieces:
        call = calls.setdefault(piece.index, ToolCall("", "", ""))
        calls[piece.index] = ToolCall(call.id or piece.id, call.name or piece.name, call.arguments + piece.arguments)
    return tuple(calls[index] for index in sorted(calls))


def _candidate(deltas: list[Delta], sampled: tuple[Sampled, ...]) -> Candidate:
    ids = tuple(token.id for token in sampled if token.id is not None)
    logprobs = tuple(token.logprob for token in sampled if token.logprob is not None)
    known = bool(ids) and len(ids) == len(sampled)
    tokens = Tokens(ids, logprobs if len(logprobs) == len(ids) else None) if known else None
    message = Message(
        "assistant",
        "".join(delta.text for delta in deltas),
        reasoning_content="".join(delta.reasoning for delta in deltas) or None,
        tool_calls=_join(piece for delta in deltas for piece in delta.tool_calls),
    )
    finish = next((delta.finish_reason for delta in deltas if delta.finish_reason), None)
    return Candidate((message,), tokens=tokens, finish_reason=finish)
