"""A smaller model that guesses for the served one (Leviathan et al. 2023; Chen et al. 2023).

Its keys and values lie in pages of its own, under the block numbers that the scheduler gave the sequence: so nothing is
allocated, freed or preempted twice. A block whose keys and values it has computed is known by the digest of its prefix, and
a sequence that shares the block, or comes back to it, finds them there.

It draws as the served model would, with the same noise at the same position, among the tokens that the answer's form allows:
the nearer the two distributions are, the
more often they draw the same token. Verifying by equality keeps the served model's own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from myna.engine.blocks import BLOCK, blocks_for
from myna.engine.constraint import Mask
from myna.engine.costs import Costs
from myna.engine.request import Plan, Request, Sequence, Slice
from myna.engine.runner import Runner
from myna.engine.speculate import Rate
from myna.records import DEFAULTS, Sampling

CATCH_UP = 512  # tokens that one step computes at most to reach where the sequences are, as in a step of prefill
WORTH = 16  # tokens of that for each token the answer may still get
HOPED, WEIGHT = 0.7, 4.0  # chance of a guess before anything is known, and how many guesses that counts as
RECALL = 60  # guesses that count in a rate
RETRY = 0.5  # guesses that are forgotten a step, so that what failed is tried again some hundred steps later


@dataclass(slots=True)
class _Shadow:
    """A sequence as the draft model sees it: its first `known` tokens are the sequence's, guesses follow. `noted` of its
    blocks are known by their digest. `lost`: there is no guessing for this one."""

    sequence: Sequence | None = None
    known: int = 0
    noted: int = 0
    lost: bool = False
    rate: Rate = field(default_factory=lambda: Rate(RECALL))


class DraftModel:
    """A Drafter.

    runner   computes the draft model, on pages of as many blocks as the served model has
    vocab    tokens that both models know; a sequence with any other gets no guesses
    max_len  positions that the draft model reaches
    most     sequences that it guesses for at once
    clock    seconds, to learn what a guess takes
    """

    name = "the draft model"

    def __init__(self, runner: Runner, *, vocab: int, max_len: int, most: int, clock: Callable[[], float]):
        self.runner = runner
        self.vocab = vocab
        self.max_len = max_len
        self.clock = clock
        self.costs = Costs(most)
        self.rate = Rate(RECALL)
        self._shadows: dict[Sequence, _Shadow] = {}
        self._holds: dict[int, bytes] = {}  # block -> the digest of the prefix whose last keys and values it has
        self._warm_up()

    def chances(self, sequence: Sequence, most: int) -> list[float]:
        shadow = self._shadows.setdefault(sequence, _Shadow())
        for rate in (shadow.rate, self.rate):
            rate.fade(RETRY)
        most = min(most, self.max_len - len(sequence.tokens))
        worth = WORTH * (sequence.request.max_tokens - sequence.generated)
        if shadow.lost or most < 1 or self._behind(sequence) > worth:
            return []
        return [shadow.rate.share(self.rate.share(HOPED, WEIGHT), WEIGHT)] * most

    def seconds(self, sequences: Collection[Sequence], guesses: int) -> float:
        """The first also computes what others guessed meanwhile. A whole prompt is not counted: that is done once."""
        first = min(sum(map(self._behind, sequences)), self.costs.most)
        return self.costs.seconds(first) + (guesses - 1) * self.costs.seconds(len(sequences))

    def draft(self, wants: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        guesses: dict[Sequence, list[int]] = {}
        going = [sequence for sequence in wants if self._follow(sequence)]
        while going:
            said = self._compute(going)
            for sequence, token in said.items():
                guesses.setdefault(sequence, []).append(token)
            going = [s for s, token in said.items() if len(guesses[s]) < wants[s] and token not in s.request.stop_ids]
        return guesses

    def learn(self, sequence: Sequence, drafted: int, right: int) -> None:
        for rate in (self._shadows[sequence].rate, self.rate):
            rate.learn(right, right < drafted)

    def forget(self, sequence: Sequence) -> None:
        self._shadows.pop(sequence, None)

    def _follow(self, sequence: Sequence) -> bool:
        """Bring the shadow up to the sequence: its tokens, its blocks, and how much of them is computed. False if it has
        tokens that the draft model does not know."""
        shadow = self._shadows.setdefault(sequence, _Shadow())
        mine = shadow.sequence
        if mine is None or mine.preemptions != sequence.preemptions:  # new, or in new blocks
            mine = shadow.sequence = Sequence(self._ask(sequence.request), sequence.candidate, [])
            mine.preemptions, shadow.known, shadow.noted = sequence.preemptions, 0, 0
            mine.computed = BLOCK * self._held(sequence)
        else:
            mine.computed = min(mine.computed, _agreement(mine.tokens, sequence.tokens, shadow.known))
        fresh = sequence.tokens[shadow.known :]
        shadow.lost = shadow.lost or max(fresh, default=0) >= self.vocab
        mine.tokens[shadow.known :], mine.blocks = fresh, sequence.blocks
        shadow.known = len(mine.tokens)
        mine.computed = min(mine.computed, shadow.known - 1)  # the last is always computed, for what follows it
        return not shadow.lost

    def _compute(self, going: list[Sequence]) -> dict[Sequence, int]:
        """One pass over what is not computed yet, as far as CATCH_UP goes; the next token of those that reach their end."""
        owners = {self._mine(sequence): sequence for sequence in going}
        slices = [*self._slices(owners)]
        rows = sum(piece.stop - piece.start for piece in slices)
        for piece in slices:
            for block in piece.sequence.blocks[piece.start // BLOCK : blocks_for(piece.stop)]:
                self._holds.pop(block, None)
        plan, started = Plan(tuple(slices)), self.clock()
        logits = self.runner.run(plan)
        masks = self._masks([owners[piece.sequence] for piece in plan.sampling], -(-logits.shape[1] // 32))
        chosen = self.runner.choose(logits, plan.sampling, masks)
        self.costs.learn(rows, self.clock() - started)
        for piece in slices:
            piece.sequence.computed = piece.stop
            self._note(self._shadows[owners[piece.sequence]], owners[piece.sequence].digests)
        said = {}
        for piece, choices in zip(plan.sampling, chosen, strict=True):
            sequence = owners[piece.sequence]
            if isinstance(choices, Exception):
                self._shadows[sequence].lost = True
            elif choices[0].id < self.vocab and (sequence.form is None or piece.sequence in masks):
                piece.sequence.tokens.append(choices[0].id)
                said[sequence] = choices[0].id
        return said

    def _masks(self, going: list[Sequence], words: int) -> dict[Sequence, Mask]:
        """Of those whose answer has a form, what may follow the guesses so far; none where nothing may."""
        masks = {}
        for sequence in going:
            mine, known = self._mine(sequence), self._shadows[sequence].known
            if sequence.form and (mask := sequence.form.mask_after(mine.tokens[known:], words)) is not None:
                masks[mine] = mask
        return masks

    def _slices(self, mine: Mapping[Sequence, Sequence]) -> Iterator[Slice]:
        left = CATCH_UP
        for sequence in mine:
            stop = min(len(sequence.tokens), sequence.computed + left)
            left -= stop - sequence.computed
            if stop > sequence.computed:
                yield Slice(sequence, sequence.computed, stop)

    def _ask(self, request: Request) -> Request:
        """The request as the draft model answers it: sampled alike, among the tokens it knows, without adapters."""
        bias = tuple((token, bias) for token, bias in request.sampling.logit_bias or () if token < self.vocab)
        return replace(request, adapter=0, sampling=replace(request.sampling, logit_bias=bias, logprobs=None))

    def _behind(self, sequence: Sequence) -> int:
        """Tokens to compute before the next guess: 1 where the last guesses were wrong, 2 where they were right."""
        mine = self._shadows[sequence].sequence if sequence in self._shadows else None
        return max(len(sequence.tokens) - (mine.computed if mine else 0), 1)

    def _mine(self, sequence: Sequence) -> Sequence:
        mine = self._shadows[sequence].sequence
        assert mine is not None, "followed before it is computed"
        return mine

    def _held(self, sequence: Sequence) -> int:
        """How many of the sequence's first blocks hold its keys and values already."""
        known = [self._holds.get(b) == digest for b, digest in zip(sequence.blocks, sequence.digests, strict=False)]
        return known.index(False) if False in known else len(known)

    def _note(self, shadow: _Shadow, digests: list[bytes]) -> None:
        """Remember the blocks that are full. `digests` are of the sequence's own tokens, so guesses are none of them."""
        assert shadow.sequence is not None
        full = min(shadow.sequence.computed // BLOCK, len(digests))
        for index in range(shadow.noted, full):
            self._holds[shadow.sequence.blocks[index]] = digests[index]
        shadow.noted = full

    def _warm_up(self) -> None:
        """A few guesses at nothing, so that what one takes is known before it is asked."""
        nothing = Sequence(Request(-1, (0,), Sampling(temperature=0.0).resolve(DEFAULTS)), 0, [0], blocks=[0])
        plan = Plan((Slice(nothing, 0, 1),))
        for _ in range(3):
            started = self.clock()
            self.runner.choose(self.runner.run(plan), plan.sampling)
            self.costs.learn(1, self.clock() - started)


def _agreement(mine: list[int], theirs: list[int], start: int) -> int:
    """Where the two differ first, from `start` on, up to which they agree."""
    end = min(len(mine), len(theirs))
    return next((i for i in range(start, end) if mine[i] != theirs[i]), end)
