"""Deciding what the next step computes, and settling what it yielded. No torch, clock, threads or randomness.

`plan()` gives every running decode its token first, then spends what is left of the token budget on prefill chunks, oldest
first, and admits waiting sequences whose whole prompt fits. When blocks run out the youngest sequence is preempted: its
blocks go back and it is computed again later (much of it from the prefix cache). The oldest can always preempt all others,
and admission refused what could never fit alone, so every admitted request ends.
"""

from bisect import insort
from operator import attrgetter

from myna.engine.blocks import BLOCK, Blocks, blocks_for, extend_digests
from myna.engine.constraint import Constraint
from myna.engine.request import Event, Plan, Request, Sequence, Slice
from myna.engine.speculate import Speculator

_order = attrgetter("order")
_urgency = attrgetter("request.priority")


class Scheduler:
    """Holds the waiting and running sequences of all requests and the blocks they own.

    budget        most tokens computed in one step
    max_running   most sequences decoded at once
    prefix_cache  whether blocks computed for one sequence may serve another
    speculator    who guesses what comes next, in steps that only decode; None: nobody
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        budget: int = 512,
        max_running: int = 64,
        prefix_cache: bool = True,
        speculator: Speculator | None = None,
    ):
        assert budget >= max_running >= 1, "a step must be able to decode every running sequence"
        self.blocks = blocks
        self.budget = budget
        self.max_running = max_running
        self.prefix_cache = prefix_cache
        self.speculator = speculator
        self.waiting: list[Sequence] = []  # both lists are kept in their sequences' order
        self.running: list[Sequence] = []
        self.held: list[Sequence] = []  # neither: they own nothing, and stand still until they are resumed
        self.preemptions = self.prefix_queries = self.prefix_hits = 0  # so far; the last two count prompt tokens
        self._leaders: dict[int, Sequence] = {}  # request id -> its candidate 0, while that one is alive

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, request: Request) -> list[Sequence]:
        """Queue one sequence per candidate. The request was admitted: it fits the pool when alone."""
        need = blocks_for(len(request.ids) + request.max_tokens)
        assert need <= self.blocks.count, f"request {request.id} needs {need} blocks of {self.blocks.count}"
        count = range(request.sampling.n or 1)
        sequences = [Sequence(request, k, list(request.ids), form=_constraint(request)) for k in count]
        self._leaders[request.id] = sequences[0]
        for sequence in sequences:
            insort(self.waiting, sequence, key=_order)
        return sequences

    def finish(self, sequence: Sequence, reason: str) -> None:
        """End a sequence now, wherever it is; its blocks are free at once. Ending it twice does nothing."""
        if sequence.finish_reason is not None:
            return
        sequence.finish_reason = reason
        next(there for there in (self.running, self.waiting, self.held) if sequence in there).remove(sequence)
        self._give_back(sequence)
        if self.speculator:
            self.speculator.forget(sequence)
        if self._leaders.get(sequence.request.id) is sequence:
            del self._leaders[sequence.request.id]

    def hold(self, sequence: Sequence) -> None:
        """Compute nothing for it until it is resumed. Its blocks are free at once; what they hold stays findable."""
        if sequence.finish_reason is not None or sequence in self.held:
            return
        if sequence in self.running:
            self._preempt(sequence)
        self.waiting.remove(sequence)
        self.held.append(sequence)

    def resume(self, sequence: Sequence) -> None:
        """Let it wait for its turn again."""
        if sequence in self.held:
            self.held.remove(sequence)
            insort(self.waiting, sequence, key=_order)

    def plan(self) -> Plan:
        """What to compute next; empty when nothing can run."""
        slices: dict[Sequence, Slice] = {}  # in order: decodes, then prefills
        decoding = [s for s in self.running if s.pending == 1]
        prefilling = [s for s in self.running if s.pending > 1]
        begun = {*prefilling}
        for sequence in decoding:
            self._advance(sequence, 1, slices)  # the budget has room for every one of them
        blocked = False
        for sequence in sorted([*prefilling, *self.waiting], key=_urgency):
            if self._left(slices) == 0:
                break
            if sequence not in begun:
                if blocked or self._waits_for_leader(sequence):
                    continue
                blocked = not self._place(sequence, slices)  # nobody overtakes the one that does not fit yet
            self._advance(sequence, self._left(slices), slices)
        if self.speculator and all(s.stop - s.start == s.answers for s in slices.values()):
            self._guess(self.speculator, slices)  # last, so that guesses take nothing that a sequence needs
        return Plan(tuple(slices.values()))

    def _advance(self, sequence: Sequence, most: int, slices: dict[Sequence, Slice]) -> None:
        """Add the sequence's next slice of at most so many rows, unless it was preempted meanwhile or is now."""
        stop = sequence.computed + min(sequence.pending, most)
        if sequence in self.running and stop > sequence.computed and self._make_room(sequence, stop, slices):
            slices[sequence] = Slice(sequence, sequence.computed, stop)

    def _guess(self, speculator: Speculator, slices: dict[Sequence, Slice]) -> None:
        """Add guesses to decode slices, as far as budget, free blocks and max_tokens go."""
        wants = speculator.choose({s: self._reach(s) for s in slices}, self._left(slices))
        for sequence, want in wants.items():
            want.count = min(want.count, self._reach(sequence))  # others may have got the blocks it counted on
            need = blocks_for(len(sequence.tokens) + want.count) - len(sequence.blocks)
            sequence.blocks += self.blocks.take(max(need, 0))
        for sequence, draft in speculator.draft(wants).items():
            slices[sequence] = Slice(sequence, sequence.computed, len(sequence.tokens) + len(draft), draft)

    def _reach(self, sequence: Sequence) -> int:
        """The most guesses that max_tokens and free blocks leave room for."""
        wanted = sequence.request.max_tokens - sequence.generated - 1
        return min(wanted, (len(sequence.blocks) + self.blocks.free) * BLOCK - len(sequence.tokens))

    def _left(self, slices: dict[Sequence, Slice]) -> int:
        return self.budget - sum(s.stop - s.start for s in slices.values())

    def settle(self, plan: Plan, tokens: list[list[int]]) -> list[Event]:
        """Record what a step computed. `tokens` answers `plan.sampling`, in order: what was sampled after the last known
        token, and after each right guess."""
        events: list[Event] = []
        answers = iter(tokens)
        for piece in plan.slices:
            sequence, sampled = piece.sequence, next(answers) if piece.answers else []
            if sequence.finish_reason is not None:
                continue  # cancelled while the step was running; its blocks are already back
            right = max(len(sampled) - 1, 0)
            if self.speculator:
                self.speculator.learn(sequence, len(piece.draft), right)
            sequence.computed = piece.stop - len(piece.draft) + right
            for token in sampled:
                sequence.tokens.append(token)
                reason = _finish_reason(sequence, token)
                events.append(Event(sequence, token, reason))
                if reason is not None:
                    break
            self._remember(piece)
            if sampled and reason is not None:
                self.finish(sequence, reason)
        return events

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        """Candidates of one request wait until the first has computed the prompt, then share its blocks."""
        leader = self._leaders.get(sequence.request.id)
        if not self.prefix_cache or leader is None or leader is sequence:
            return False
        return leader.computed < len(leader.request.ids)

    def _place(self, sequence: Sequence, slices: dict[Sequence, Slice]) -> bool:
        """Admit a waiting sequence, in the place of less urgent ones if need be. False if it has to wait."""
        while len(self.running) >= self.max_running or not self._admit(sequence):
            if not self.running or not _gives_way(last := self.running[-1], sequence):
                return False
            self._preempt(last)
            self.preemptions += 1
            slices.pop(last, None)
        return True

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence to running, with the cached blocks of its prefix, if all of its tokens fit now."""
        found: list[int] = []
        if self.prefix_cache:
            extend_digests(sequence.digests, sequence.tokens, sequence.request.root)
            # The last token is always computed: its logits are what the step is for.
            found = self.blocks.find(sequence.digests[: (len(sequence.tokens) - 1) // BLOCK])
        found_free = sum(self.blocks.owners[block] == 0 for block in found)
        if blocks_for(len(sequence.tokens)) - len(found) > self.blocks.free - found_free:
            return False
        self.blocks.own(found)
        sequence.blocks, sequence.computed = found, len(found) * BLOCK
        if not sequence.preemptions:
            sequence.cached = sequence.computed
            self.prefix_queries += len(sequence.tokens)
            self.prefix_hits += sequence.cached
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=_order)
        return True

    def _make_room(self, sequence: Sequence, stop: int, slices: dict[Sequence, Slice]) -> bool:
        """Give the sequence blocks up to token `stop`, preempting younger ones if need be. False if it had to yield."""
        need = blocks_for(stop) - len(sequence.blocks)
        if need > self.blocks.free:
            self._take_back_from_guesses()
        while need > self.blocks.free:
            youngest = self.running[-1]
            self._preempt(youngest)
            self.preemptions += 1
            slices.pop(youngest, None)
            if youngest is sequence:
                return False
        sequence.blocks += self.blocks.take(max(need, 0))
        return True

    def _take_back_from_guesses(self) -> None:
        """Free the blocks that wrong guesses left behind. Not sooner: their sequence needs them next, most likely."""
        for sequence in self.running:
            needed = blocks_for(len(sequence.tokens))
            self.blocks.release(sequence.blocks[needed:])
            del sequence.blocks[needed:]

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.preemptions += 1
        insort(self.waiting, sequence, key=_order)

    def _give_back(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks, sequence.computed = [], 0

    def _remember(self, piece: Slice) -> None:
        """Make the blocks that this slice filled findable."""
        if not self.prefix_cache:
            return
        sequence = piece.sequence
        extend_digests(sequence.digests, sequence.tokens, sequence.request.root)
        for index in range(piece.start // BLOCK, min(sequence.computed, len(sequence.tokens)) // BLOCK):
            self.blocks.remember(sequence.blocks[index], sequence.digests[index])

    def check(self) -> None:
        """Assert the scheduler's laws: what sequences hold is what the pool says is owned, and nothing else is."""
        self.blocks.check()
        held = [block for sequence in self.running for block in sequence.blocks]
        assert sorted(held) == sorted(b for b, n in enumerate(self.blocks.owners) for _ in range(n))
        assert all(not s.blocks and s.computed == 0 for s in self.waiting + self.held)
        assert self.waiting == sorted(self.waiting, key=_order)
        assert self.running == sorted(self.running, key=_order)
        assert set(self._leaders) <= {s.request.id for s in self.waiting + self.running + self.held}


def _gives_way(running: Sequence, waiting: Sequence) -> bool:
    """Whether a running sequence gives its place to a waiting one: to what is more urgent, and all candidates but a request's
    first to what comes before them."""
    return _urgency(running) > _urgency(waiting) or (running.candidate > 0 and running.order > waiting.order)


def _constraint(request: Request) -> Constraint | None:
    return Constraint(request.form) if request.form else None


def _finish_reason(sequence: Sequence, token: int) -> str | None:
    if token in sequence.request.stop_ids and not sequence.request.sampling.ignore_eos:
        return "stop"
    if sequence.form and sequence.form.take(token):
        return "stop"  # its form is complete
    return "length" if sequence.generated >= sequence.request.max_tokens else None
