"""The engine: decide, compute, settle, tell.

    plan = scheduler.plan()          which tokens
    logits = runner.run(plan)        the forward pass
    choices = runner.choose(logits)  the next tokens, among those that a form allows (masks.py)
    scheduler.settle(plan, choices)  who is finished

One thread steps it. `Loop` (loop.py) gives it a thread; `generate` runs it to the end here, for tests and benchmarks.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

from myna.engine.adapters import PackedAdapter
from myna.engine.ahead import Heads
from myna.engine.blocks import BLOCK, Blocks, blocks_for
from myna.engine.constraint import Matcher
from myna.engine.draft import DraftModel
from myna.engine.lookup import Lookup
from myna.engine.masks import Constrainer, faults
from myna.engine.request import Plan, Request, Sequence, resolve_max_tokens
from myna.engine.runner import PagedRunner, Runner
from myna.engine.sample import BrokenLogits, Choice
from myna.engine.schedule import Scheduler
from myna.engine.speculate import Drafter, Speculator
from myna.model import Adapter, Decoder
from myna.model.ahead import Ahead
from myna.records import DEFAULTS, MynaError, RequestError, Sampling

log = logging.getLogger(__name__)
MOST_DRAFT_ROWS = 512  # as many as a step's usual budget; what a step of each number of rows costs is remembered


@dataclass(frozen=True, slots=True)
class Update:
    """News of one candidate: a token, an end, or an error that ended it. `began` is when the first step with any part of its
    request did, in seconds of time.perf_counter."""

    candidate: int
    choice: Choice | None = None
    finish_reason: str | None = None
    error: str | None = None
    cached: int = 0
    began: float = field(default=0.0, compare=False)


Listener = Callable[[Update], bool]
"""Hears every update of its request, on the engine's thread. True ends the candidate (a stop string was seen)."""


@dataclass(slots=True)
class _Live:
    """A request that is not over. `began` is 0 before its first step."""

    listen: Listener
    sequences: list[Sequence]
    began: float = 0.0


class Engine:
    """Requests in, updates out. `max_len` bounds prompt and answer together, and never exceeds what the pool holds."""

    def __init__(self, runner: Runner, scheduler: Scheduler, *, max_len: int, vocab: int):
        self.runner = runner
        self.scheduler = scheduler
        self.max_len = max_len
        self.vocab = vocab
        self._constrainer = Constrainer(vocab)
        self._steps, self._step_seconds, self._forward_seconds = 0, 0.0, 0.0
        self._next_id = 0
        self._adapters_added = 0
        self._live: dict[int, _Live] = {}

    @property
    def idle(self) -> bool:
        return self.scheduler.idle

    def resolve(self, ids: Seq[int], sampling: Sampling) -> Sampling:
        """The request's sampling with every field decided, or RequestError. Reads nothing that changes: any thread may."""
        sampling = sampling.resolve(DEFAULTS).check()
        for param, tokens in (("prompt", ids), ("logit_bias", [token for token, _ in sampling.logit_bias or ()])):
            if (outside := next((token for token in tokens if not 0 <= token < self.vocab), None)) is not None:
                raise RequestError(f"Token {outside} is outside the vocabulary of {self.vocab} tokens.", param=param)
        max_tokens = resolve_max_tokens(len(ids), sampling.max_tokens, self.max_len)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        return replace(sampling, max_tokens=max_tokens, seed=seed)

    def submit(
        self,
        ids: Seq[int],
        sampling: Sampling,
        listen: Listener,
        *,
        stop_ids: frozenset[int] = frozenset(),
        priority: int = 0,
        salt: str = "",
        form: Callable[[], Matcher] | None = None,
        adapter: int = 0,
    ) -> int:
        """Queue a request and return its id. Raises RequestError if it can never be honoured; of an adapter that is no
        longer there its listener hears."""
        resolved = self.resolve(ids, sampling)
        request = Request(self._next_id, tuple(ids), resolved, stop_ids, priority, salt, form, adapter)
        self._next_id += 1
        self._live[request.id] = _Live(listen, self.scheduler.add(request))
        if adapter and adapter not in self.runner.adapters:
            self.fail(self._live[request.id].sequences, "its adapter was unloaded")
        return request.id

    def add_adapter(self, prepared: Adapter | PackedAdapter) -> int:
        """The number that requests name it by. `prepared` is what `runner.prepare` made. Never given twice, so what one
        adapter computed is never found by another."""
        self._adapters_added += 1
        self.runner.adapters[self._adapters_added] = prepared
        return self._adapters_added

    def drop_adapter(self, number: int) -> None:
        """Free it. Requests that still need it end with an error; whoever drops it lets them finish first."""
        there = (self.scheduler.running, self.scheduler.waiting, self.scheduler.held)
        self.fail([s for some in there for s in some if s.request.adapter == number], "its adapter was unloaded")
        self.runner.drop(number)

    def cancel(self, request_id: int) -> None:
        """End a request wherever it is. Its blocks are free when this returns; its listener hears nothing more."""
        for sequence in self._sequences(request_id):
            self.scheduler.finish(sequence, "cancelled")
        self._live.pop(request_id, None)

    def hold(self, request_id: int) -> None:
        """Compute nothing for a request until it is resumed: whoever reads it is far behind. It owns no blocks meanwhile."""
        for sequence in self._sequences(request_id):
            self.scheduler.hold(sequence)

    def resume(self, request_id: int) -> None:
        """Go on with a request that was held. What it had computed is found in the prefix cache, or computed again."""
        for sequence in self._sequences(request_id):
            self.scheduler.resume(sequence)

    def _sequences(self, request_id: int) -> list[Sequence]:
        live = self._live.get(request_id)
        return live.sequences if live else []

    def stats(self) -> dict[str, float]:
        """What there is and what was done so far. Reads single numbers: any thread may."""
        scheduler, blocks = self.scheduler, self.scheduler.blocks
        native = getattr(self.runner, "native", None)  # it tells the kernels' own time from that of calling them
        forward = native.seconds if native else self._forward_seconds
        return {
            "sequences_running": len(scheduler.running),
            "sequences_waiting": len(scheduler.waiting),
            "sequences_held": len(scheduler.held),
            "kv_usage": 1 - blocks.free / blocks.count,
            "prefix_queries": scheduler.prefix_queries,
            "prefix_hits": scheduler.prefix_hits,
            "preemptions": scheduler.preemptions,
            "steps": self._steps,
            "step_seconds": self._step_seconds,
            "host_seconds": self._step_seconds - forward,
            "mask_seconds": self._constrainer.seconds,
        }

    def step(self) -> None:
        """Compute one plan and tell the listeners."""
        started = time.perf_counter()
        self._step()
        self._steps += 1
        self._step_seconds += time.perf_counter() - started

    def _step(self) -> None:
        plan = self.scheduler.plan()
        self._compute(plan)
        # Only now: when several candidates end in one step, each must still be heard.
        self._forget_finished(piece.sequence for piece in plan.slices)

    def _compute(self, plan: Plan) -> None:
        started = time.perf_counter()
        for piece in plan.slices:
            request = self._live[piece.sequence.request.id]
            request.began = request.began or started
        try:
            masks = self._constrainer.start(plan)
            logits = self.runner.run(plan)
            self._forward_seconds += time.perf_counter() - started
            choices = self.runner.choose(logits, plan.sampling, masks.wait())
        except Exception as e:
            # Out of memory, most likely. Whoever was in this step learns of it; the engine lives on.
            log.exception("a step failed; its %d sequences end with an error", len(plan.slices))
            self.fail((piece.sequence for piece in plan.slices), f"{type(e).__name__}: {e}")
            return
        if self.scheduler.speculator:
            self.scheduler.speculator.took(plan, time.perf_counter() - started)
        chosen = dict(zip((piece.sequence for piece in plan.sampling), choices, strict=True))
        chosen |= {sequence: BrokenLogits(fault) for sequence, fault in faults(chosen).items()}
        for sequence, choice in chosen.items():
            if isinstance(choice, BrokenLogits):
                self._break(sequence, str(choice))
        sampled = [[] if isinstance(found, BrokenLogits) else found for found in chosen.values()]
        events = self.scheduler.settle(plan, [[choice.id for choice in found] for found in sampled])
        following = {sequence: iter(found) for sequence, found in zip(chosen, sampled, strict=True)}
        enough: set[Sequence] = set()
        for event in events:
            sequence, token = event.sequence, next(following[event.sequence])
            live = self._live.get(sequence.request.id)
            began = live.began if live else 0.0
            update = Update(sequence.candidate, token, event.finish_reason, cached=sequence.cached, began=began)
            if sequence not in enough and self._tell(sequence, update):
                enough.add(sequence)

    def _tell(self, sequence: Sequence, update: Update) -> bool:
        """Whether its listener has heard enough: then the sequence ends, and hears of no other token of this step."""
        live = self._live.get(sequence.request.id)
        if live is None:
            return True  # cancelled by a listener earlier in this step
        try:
            enough = live.listen(update)
        except Exception:
            log.exception("the listener of request %d failed; the candidate ends", sequence.request.id)
            enough = True
        if enough:
            self.scheduler.finish(sequence, "stop")
        return enough

    def _forget_finished(self, sequences: Iterable[Sequence]) -> None:
        for id in {sequence.request.id for sequence in sequences}:
            if all(s.finish_reason is not None for s in self._sequences(id)):
                self._live.pop(id, None)

    def _break(self, sequence: Sequence, error: str) -> None:
        """End a sequence whose numbers are not to be trusted; nobody finds what it left behind."""
        blocks = [*sequence.blocks]
        self.scheduler.finish(sequence, "error")
        for block in blocks:
            self.scheduler.blocks.forget(block)
        self._tell(sequence, Update(sequence.candidate, error=error))

    def fail(self, sequences: Iterable[Sequence], error: str) -> None:
        """End these sequences with an error that their listeners hear."""
        ended = [*sequences]
        for sequence in ended:
            self._break(sequence, error)
        self._forget_finished(ended)

    def generate(
        self, prompts: Seq[Seq[int]], sampling: Sampling, *, stop_ids: frozenset[int] = frozenset()
    ) -> list[list[list[Choice]]]:
        """Every prompt's candidates' choices, computed together, here and now."""
        answers: list[list[list[Choice]]] = []
        for ids in prompts:
            answer: list[list[Choice]] = [[] for _ in range(sampling.n or 1)]
            answers.append(answer)
            self.submit(ids, sampling, _collect(answer), stop_ids=stop_ids)
        while not self.idle:
            self.step()
        return answers


def _collect(answer: list[list[Choice]]) -> Listener:
    def listen(update: Update) -> bool:
        if update.choice is not None:
            answer[update.candidate].append(update.choice)
        return False

    return listen


def engine_for(
    model: Decoder,
    *,
    kv_tokens: int,
    max_len: int | None = None,
    budget: int = 512,
    max_running: int = 64,
    prefix_cache: bool = True,
    draft_rows: int = 0,
    draft: Decoder | None = None,
    heads: Ahead | None = None,
    runner: Callable[[Decoder, int], Runner] = PagedRunner,
) -> Engine:
    """An engine over a loaded model, with room for the keys and values of `kv_tokens` tokens.

    draft_rows: rows that decodes and their guesses may have together; 0 is no guessing. draft: a smaller model that guesses
    too, of the same tokens; its keys and values take as many blocks again, of its own size. heads: the model's own, which
    guess too where torch computes.
    budget 512: one step of prefill is then short enough that running answers do not stall.
    Raises MynaError when `kv_tokens` or `max_running` leave nothing to run with.
    """
    if kv_tokens < BLOCK:
        raise MynaError(f"There is room for the keys and values of {kv_tokens} tokens; a larger --kv-gb is needed.")
    if not 1 <= max_running <= budget:
        raise MynaError(
            f"--max-running is {max_running}; a step of {budget} tokens can run from 1 to {budget} sequences."
        )
    if not 0 <= draft_rows <= MOST_DRAFT_ROWS:
        raise MynaError(f"--draft-rows is {draft_rows}; it goes from 0 to {MOST_DRAFT_ROWS}.")
    blocks = Blocks(blocks_for(kv_tokens))
    drafters: list[Drafter] = [Lookup()] if draft_rows else []
    if draft_rows and draft is not None:
        vocab, reach = min(model.spec.vocab, draft.spec.vocab), draft.max_len
        guesser = PagedRunner(draft, blocks.count)
        drafters.append(DraftModel(guesser, vocab=vocab, max_len=reach, most=draft_rows, clock=time.perf_counter))
    computes = runner(model, blocks.count)
    if draft_rows and heads is not None and isinstance(computes, PagedRunner):
        drafters += _heads(model, heads, computes)
    speculator = Speculator(drafters, rows=draft_rows, vocab=model.spec.vocab) if drafters else None
    scheduler = Scheduler(
        blocks, budget=budget, max_running=max_running, prefix_cache=prefix_cache, speculator=speculator
    )
    limit = min(max_len or model.max_len, model.max_len, blocks.count * BLOCK)
    return Engine(computes, scheduler, max_len=limit, vocab=model.spec.vocab)


def _heads(model: Decoder, heads: Ahead, runner: PagedRunner) -> list[Drafter]:
    if runner.native is not None:
        log.warning(
            "the model's heads guess nothing: native kernels keep hidden states to themselves; float32 has them"
        )
        return []
    guesser = Heads(model, heads, time.perf_counter)
    runner.hear = guesser.hear
    return [guesser]
