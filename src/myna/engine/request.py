"""What the engine is asked for, and the state of each candidate while it runs. No torch, clock, threads or randomness."""

from collections.abc import Callable
from dataclasses import dataclass, field

from myna.engine.constraint import Constraint, Matcher
from myna.records import RequestError, Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to continue. `id` is the arrival number: every tie in scheduling is broken by it.

    sampling    resolved: nothing in it is None but `logprobs`
    stop_ids    token ids that end an answer
    priority    lower runs first
    salt        requests share cached prefixes only with requests of the same salt, and of the same adapter
    form        makes a candidate's matcher, where answers must have a form
    adapter     the number of the adapter that answers (Engine.add_adapter), 0 for the model alone
    """

    id: int
    ids: tuple[int, ...]
    sampling: Sampling
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    salt: str = ""
    form: Callable[[], Matcher] | None = None
    adapter: int = 0

    @property
    def root(self) -> bytes:
        """What the hash chain of its blocks begins with."""
        return self.adapter.to_bytes(8, "little") + self.salt.encode()

    @property
    def max_tokens(self) -> int:
        assert self.sampling.max_tokens is not None, "resolved by Engine.resolve()"
        return self.sampling.max_tokens


@dataclass(eq=False, slots=True)
class Sequence:
    """One candidate of a request: its tokens so far, and which of them have keys and values in `blocks`."""

    request: Request
    candidate: int
    tokens: list[int]
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)  # hash chain of the full blocks of `tokens`, filled as needed
    cached: int = 0  # prompt tokens that were found in the prefix cache when it was first admitted
    preemptions: int = 0
    finish_reason: str | None = None
    form: Constraint | None = None

    @property
    def order(self) -> tuple[int, int, int]:
        """Who goes first: priority, then arrival; a request's candidate k arrives as if k requests later, so that one with many
        candidates does not keep the next one waiting for all of them."""
        return self.request.priority, self.request.id + self.candidate, self.request.id

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.ids)

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are not computed yet; 1 is a decode step, more is prefill."""
        return len(self.tokens) - self.computed


@dataclass(frozen=True, slots=True)
class Slice:
    """Positions start to stop of one sequence, computed in one step. It yields a next token if it reaches the end.

    `draft` guesses what comes after the sequence's last token; then the last 1 + len(draft) positions each yield a token,
    and those up to the first wrong guess count.
    """

    sequence: Sequence
    start: int
    stop: int
    draft: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """The tokens at these positions."""
        return [*self.sequence.tokens[self.start : self.stop], *self.draft]

    @property
    def answers(self) -> int:
        """How many of its last positions yield a token; 0 for a chunk of prefill that does not reach the end."""
        return 1 + len(self.draft) if self.stop == len(self.sequence.tokens) + len(self.draft) else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: decodes first, then prefill chunks, within the token budget."""

    slices: tuple[Slice, ...]

    @property
    def sampling(self) -> tuple[Slice, ...]:
        """The slices that yield tokens; the runner answers them in this order."""
        return tuple(s for s in self.slices if s.answers)


@dataclass(frozen=True, slots=True)
class Event:
    """A sequence got a token; `finish_reason` is set on its last."""

    sequence: Sequence
    token: int
    finish_reason: str | None


def resolve_max_tokens(prompt: int, asked: int | None, limit: int) -> int:
    """How many tokens the answer may have: what was asked for, or all that fit. Never cuts; raises RequestError instead."""
    if prompt == 0:
        raise RequestError("The prompt is empty; there is nothing to continue.", param="prompt")
    if prompt >= limit:
        raise RequestError(
            f"The prompt has {prompt} tokens and this server holds {limit} (prompt and answer together). "
            "Shorten the prompt, or serve with a larger --max-len.",
            param="prompt",
            code="context_length_exceeded",
        )
    if asked is not None and prompt + asked > limit:
        raise RequestError(
            f"The prompt has {prompt} tokens and max_tokens is {asked}: {prompt + asked} together, and this server holds "
            f"{limit}. Ask for at most {limit - prompt}, or serve with a larger --max-len.",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return limit - prompt if asked is None else asked
