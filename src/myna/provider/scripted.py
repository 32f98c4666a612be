"""The provider that says what its script says, piece by piece, and remembers what it was asked. No model needed.

scripted = Scripted(["Hello.", Message("assistant", "5", reasoning_content="2 + 3")])
reply = await complete(scripted, Conversation.ask("Hi"))
assert reply.text == "Hello." and scripted.requests[0].what == Conversation.ask("Hi")
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Literal

from myna.records import (
    CallPiece,
    Candidate,
    Conversation,
    Delta,
    Document,
    Message,
    ProviderError,
    Reply,
    Sampled,
    Sampling,
    Usage,
)

if TYPE_CHECKING:
    from myna.chat import Chat

What = Conversation | Document
Split = Callable[[str], Iterable[str]]
# A callable's answer is a turn again, so a script can react to what it is asked.
Turn = str | Message | Candidate | Reply | Exception | tuple[str, Exception] | Callable[[What], Any]


@dataclass(slots=True)
class Seen:
    """A request that Scripted saw. `outcome` is None while its stream is open; "closed" is the reader's doing."""

    what: What
    sampling: Sampling
    outcome: Literal["finished", "failed", "closed"] | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """What one candidate will say: deltas, and at their end perhaps a failure."""

    steps: tuple[Delta | Exception, ...]


def every(size: int) -> Split:
    """Cut text into pieces of `size` characters."""
    return lambda text: (text[i : i + size] for i in range(0, len(text), size))


@dataclass(slots=True)
class Scripted:
    """Each candidate of each request takes the next turn of `script`, any iterable (itertools.cycle repeats for ever).

    A turn is
        str, Message or Candidate   that answer; a Candidate sets its finish_reason
        Reply                       that many candidates at once, with its tokens and its usage
        an exception                a refusal, raised before anything is said
        (str, exception)            the text, then the failure
        a callable                  given the conversation or document, returns one of the above

    split    cuts an answer into the pieces that are streamed; each piece counts as one token
    delay    seconds to wait before each piece
    chat     a tokenizer and template, for what counts and shows tokens

    Tokens of a made-up answer have no ids; their log-probabilities, when asked for, are made up but always the same.
    """

    script: Iterable[Turn] = ()
    name: str = "scripted"
    split: Split = every(4)
    delay: float = 0.0
    max_len: int | None = None
    ready: bool = True
    defaults: Sampling = Sampling()
    details: dict[str, Any] = field(default_factory=dict)
    chat: "Chat | None" = None
    requests: list[Seen] = field(default_factory=list, init=False)
    _turns: Iterator[Turn] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._turns = iter(self.script)

    async def stream(self, what: What, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        """See Provider.stream. Raises ProviderError when the script has run out."""
        seen = Seen(what, sampling.check())
        self.requests.append(seen)
        try:
            lines, usage = self._lines(what, sampling)
            yield Delta()
            for step in _interleave(lines):
                await asyncio.sleep(self.delay)
                if isinstance(step, Exception):
                    raise step
                yield step
            seen.outcome = "finished"
            yield Delta(usage=usage)
        except Exception:
            seen.outcome = "failed"
            raise
        finally:
            seen.outcome = seen.outcome or "closed"

    def _lines(self, what: What, sampling: Sampling) -> tuple[list[_Line], Usage]:
        """What each candidate will say, and what it will have cost."""
        wanted = sampling.n or 1
        lines: list[_Line] = []
        usage = Usage()
        while len(lines) < wanted:
            turn = self._next_turn(what)
            if isinstance(turn, Reply):
                usage = turn.usage
                sampled = turn.sampled or ((),) * len(turn.candidates)
                pairs = zip(turn.candidates, sampled, strict=True)
                lines += [self._line(one, tokens, sampling, len(lines) + k) for k, (one, tokens) in enumerate(pairs)]
            else:
                lines.append(self._say(turn, sampling, len(lines)))
        if len(lines) > wanted:
            raise ProviderError(f"The script answers with {len(lines)} candidates; the request asks for {wanted}.")
        return lines, usage if usage != Usage() else self._count(what, lines)

    def _next_turn(self, what: What) -> Turn:
        try:
            turn = next(self._turns)
        except StopIteration:
            raise ProviderError(f"The script has run out: request {len(self.requests)} finds no reply left.") from None
        while callable(turn):
            turn = turn(what)
        if isinstance(turn, Exception):
            raise turn
        return turn

    def _say(self, turn: Turn, sampling: Sampling, candidate: int) -> _Line:
        match turn:
            case (str(text), Exception() as failure):
                spoken = self._line(Candidate((Message("assistant", text),)), (), sampling, candidate)
                return _Line((*spoken.steps[:-1], failure))
            case str(text):
                return self._line(Candidate((Message("assistant", text),)), (), sampling, candidate)
            case Message():
                return self._line(Candidate((turn,)), (), sampling, candidate)
            case Candidate():
                return self._line(turn, (), sampling, candidate)
        raise TypeError(f"a turn of a script cannot be {turn!r}")

    def _line(self, said: Candidate, sampled: tuple[Sampled, ...], sampling: Sampling, candidate: int) -> _Line:
        message = said.messages[-1]
        pieces = [Delta(candidate, reasoning=piece) for piece in self.split(message.reasoning_content or "")]
        pieces += [Delta(candidate, text=piece) for piece in self.split(message.text)]
        tokens = sampled or tuple(
            _made_up(piece.reasoning or piece.text, i, sampling.logprobs) for i, piece in enumerate(pieces)
        )
        steps = [
            replace(piece or Delta(candidate), tokens=(token,) if token else ())
            for piece, token in zip_longest(pieces, tokens)
        ]
        finish = said.finish_reason or ("tool_calls" if message.tool_calls else "stop")
        return _Line((*steps, Delta(candidate, tool_calls=CallPiece.whole(message.tool_calls), finish_reason=finish)))

    def _count(self, what: What, lines: list[_Line]) -> Usage:
        texts = [what.text] if isinstance(what, Document) else [message.text for message in what.messages]
        steps = [step for line in lines for step in line.steps if isinstance(step, Delta)]
        return Usage(
            prompt_tokens=sum(1 for text in texts for _ in self.split(text)),
            completion_tokens=sum(len(step.tokens) for step in steps),
        )


def _made_up(piece: str, position: int, logprobs: int | None) -> Sampled:
    """A token with a log-probability that depends on its position alone, and alternatives below it."""
    if logprobs is None:
        return Sampled(None, piece.encode())
    logprob = -0.125 * (1 + position % 8)
    ranked = (Sampled(None, piece.encode() if k == 0 else f"<{k}>".encode(), logprob - k) for k in range(logprobs))
    return Sampled(None, piece.encode(), logprob, tuple(ranked))


def _interleave(lines: list[_Line]) -> Iterator[Delta | Exception]:
    """One step of each candidate in turn, as a batch would make them."""
    rounds = zip_longest(*(line.steps for line in lines))
    return (step for step in chain.from_iterable(rounds) if step is not None)
