"""What methods share that learn from the trained model's own answers: drawing them, scoring them, keeping them.

A round's answers are drawn from (seed, round) by the weights of that moment and written to rollouts/round-N.jsonl, as
conversations with scored candidates and their tokens, to be read; what the weights of that moment say of each token stands
beside it in round-N.npz. A run that was killed between two steps of a round goes on with both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from myna.checks import AnyCheck, blocking
from myna.data import Example, Listed, Row, Tokenized
from myna.data.pack import pack
from myna.records import Candidate, Conversation, DataError, Message, Sampling, Tokens, Unjudged, jsonl
from myna.train.config import Config, Data, Run
from myna.train.loss import log_probs
from myna.train.method import Outcome, Tensors
from myna.train.once import batch_of, groups, unchanged
from myna.train.parallel import standing
from myna.train.reference import Reference
from myna.train.rollout import Rolled, roll_out
from myna.train.rundir import ROLLOUTS
from myna.train.setup import Setup

SAMPLER_GAP = "sampler_gap"  # a figure that means something only of the weights that drew the answers


class Rollouts:
    """Scored answers of the trainee to its prompts, drawn in rounds."""

    def __init__(
        self,
        setup: Setup,
        check: AnyCheck,
        group: int,
        max_tokens: int,
        temperature: float,
        reference: Reference | None = None,
    ):
        check_counted_in_steps(setup.config)
        self.world = setup.world
        self.trainee, self.config, self.reference = setup.trainee, setup.config, reference
        self.check = blocking(check)
        self.prompts, self.evals = setup.prompts()
        self.sampling = Sampling(n=group, max_tokens=max_tokens, temperature=temperature)
        self.samples = setup.samples
        self.folder = setup.run / ROLLOUTS
        self._check_lengths(max_tokens)

    def round(self, number: int, prompts: int) -> list[Conversation]:
        """The answers of round `number`, drawn now unless they are on disk already."""
        file = self.folder / f"round-{number:06d}.jsonl"
        if self._kept(file):
            return [*jsonl.read(file, Conversation)]
        chosen = [self.prompts[i] for i in self._turn(number, prompts)]
        answered = self.answer(chosen, self.sampling, seed=self.config.run.seed + number)
        if self.world.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            jsonl.write(file, answered)
        return answered

    def forget(self, after: int) -> None:
        """Rounds that a resumed run will draw again, with the weights it has then."""
        for file in self.folder.glob("round-*"):
            if self.world.is_main and int(file.name.removeprefix("round-").partition(".")[0]) > after:
                file.unlink()

    def answer(self, prompts: Sequence[Conversation], sampling: Sampling, seed: int) -> list[Conversation]:
        """The prompts with their scored candidates. Each process answers and scores some of the prompts, with all weights."""
        trainee = self.trainee

        def mine(numbered: Sequence[tuple[int, Conversation]]) -> list[Conversation]:
            numbers, asked = zip(*numbered, strict=True)
            ids, stops = [trainee.chat.render(prompt).ids for prompt in asked], trainee.chat.stop_ids
            rolled = roll_out(trainee.decoder, ids, sampling, seed=seed, numbers=numbers, stop_ids=stops)
            return [self._scored(prompt, group) for prompt, group in zip(asked, rolled, strict=True)]

        with standing(trainee.module):
            return self.world.each([*enumerate(prompts)], mine)

    def examples(self, answered: Sequence[Conversation], scale: bool) -> list[Example]:
        """Each answer as a sequence: learned from after its prompt, with its advantage in its group. An answer that the check
        came to no verdict about is in no group. Raises DataError where that is all of them."""
        found: list[Example] = []
        for conversation in answered:
            prompt = self.trainee.chat.render(replace(conversation, candidates=())).ids
            judged = [candidate for candidate in conversation.candidates if candidate.score is not None]
            if not judged:
                continue
            rewards = np.array([candidate.score for candidate in judged], np.float64)
            advantages = rewards - rewards.mean()
            if scale and rewards.std() > 0:
                advantages /= rewards.std()
            pairs = zip(judged, advantages, strict=True)
            found.extend((_sequence(prompt, one, float(advantage)),) for one, advantage in pairs)
        if not found:
            why = next((str(one.meta.get("reason")) for row in answered for one in row.candidates), "no answer")
            raise DataError(
                f"the check came to no verdict about any of the answers, so there is nothing to learn: {why}"
            )
        return found

    def noted(self, number: int, examples: list[Example], *, old: bool) -> list[Example]:
        """The examples of round `number` with log-probabilities of their tokens: `old` by the weights that drew them, and
        `reference` by those of the start."""
        if not old and self.reference is None:
            return examples
        file = self.folder / f"round-{number:06d}.npz"
        if self._kept(file):
            with np.load(file, allow_pickle=False) as kept:
                said = {name: kept[name] for name in kept.files}
        else:
            said = self._log_probs(examples, old)
            if self.world.is_main:
                with open(file.with_suffix(".partial"), "wb") as made:
                    np.savez(made, allow_pickle=False, **said)
                file.with_suffix(".partial").replace(file)
        ends = np.cumsum([len(sequence) for (sequence,) in examples])
        cut = {name: np.split(values, ends[:-1]) for name, values in said.items()}
        return [
            (replace(sequence, numbers={**sequence.numbers, **{name: cut[name][n] for name in cut}}),)
            for n, (sequence,) in enumerate(examples)
        ]

    def _log_probs(self, examples: list[Example], old: bool) -> dict[str, np.ndarray]:
        """Of every token of every example, one after the other; computed as training computes them, but without dropout. Each
        process computes some of the examples, with all weights."""
        listed, module = Listed(examples), self.trainee.module
        with standing(module), unchanged(module):
            rows = groups(listed, self.config)
            parts = self.world.each(rows, lambda mine: [self._log_probs_of(listed, some, old) for some in mine])
        found = {number: said for part in parts for number, said in part.items()}
        return {name: np.concatenate([found[n][name] for n in range(len(found))]) for name in found[0]}

    def _log_probs_of(self, examples: Listed, rows: list[list[int]], old: bool) -> dict[int, dict[str, np.ndarray]]:
        """Of the examples in these rows, by number."""
        decoder, warmth = self.trainee.decoder, self.sampling.temperature or 1.0
        batch = batch_of(examples, rows, self.config.data.context, self.trainee.device)
        found = {}
        with self.trainee.computing(self.config.model.precision):
            if old:
                hidden = decoder(batch.ids, batch.positions, batch.memory)
                found["old"] = log_probs(decoder, hidden, batch.targets, warmth)
            if self.reference is not None:
                found["reference"] = self.reference.log_probs(batch, warmth)
        cut = {name: _by_sequence(values, batch.docs) for name, values in found.items()}
        return {number: {name: next(values) for name, values in cut.items()} for row in rows for number in row}

    def _kept(self, file: Path) -> bool:
        """Whether the main process finds it; for all, who then all read it or none."""
        return self.world.any(self.world.is_main and file.exists())

    def _turn(self, number: int, prompts: int) -> list[int]:
        """The prompts of a round: each once before any comes again, in an order drawn anew each time."""
        total, places = len(self.prompts), range(number * prompts, (number + 1) * prompts)
        epochs = {place // total for place in places}
        orders = {n: np.random.default_rng([self.config.run.seed, n]).permutation(total) for n in epochs}
        return [int(orders[place // total][place % total]) for place in places]

    def _scored(self, prompt: Conversation, group: Sequence[Rolled]) -> Conversation:
        candidates = []
        for rolled in group:
            stopped = rolled.ids[:-1] if rolled.ids and rolled.ids[-1] in self.trainee.chat.stop_ids else rolled.ids
            said = Message("assistant", self.trainee.chat.tokenizer.decode(stopped, starts=False))
            tokens = Tokens(rolled.ids, rolled.logprobs)
            candidate = Candidate((said,), tokens=tokens, finish_reason=rolled.finish_reason)
            try:
                verdict = self.check(prompt, candidate)
            except Unjudged as e:
                candidates.append(replace(candidate, meta={"unjudged": True, "reason": str(e)}))
                continue
            candidates.append(replace(candidate, score=verdict.score, meta={"reason": verdict.reason}))
        return replace(prompt, candidates=tuple(candidates))

    def _check_lengths(self, max_tokens: int) -> None:
        context = self.config.data.context
        for prompt in (*self.prompts, *self.evals):
            size = len(self.trainee.chat.render(prompt).ids)
            if size + max_tokens > context:
                raise DataError(
                    f"{prompt.id or prompt.messages[-1].text[:60]!r}: {size} tokens of prompt and {max_tokens} of answer do not fit "
                    f"into --data.context {context}"
                )


@dataclass
class Online:
    """A Method whose rows are drawn by the model itself. `judge` is its loss while evaluating."""

    rollouts: Rollouts
    prompts: int
    updates: int
    scale: bool
    compute: Callable[[Tensors], Outcome]
    judge: Callable[[Tensors], Outcome]
    _rows: tuple[int, list[Row]] = field(default=(-1, []))
    _first: bool = True  # whether this step is a round's first: later ones' weights have not drawn its answers

    @property
    def config(self) -> Config:
        return self.rollouts.config

    @property
    def context(self) -> int:
        return self.config.data.context

    @property
    def steps(self) -> int:
        return self.config.run.steps

    def rows(self, step: int) -> list[Row]:
        number, self._first = step // self.updates, step % self.updates == 0
        if self._rows[0] != number:
            self.rollouts.forget(after=number if step % self.updates else number - 1)
            answered = self.rollouts.round(number, self.prompts)
            examples = self.rollouts.examples(answered, self.scale)
            self._rows = number, self._packed(self.rollouts.noted(number, examples, old=self.updates > 1), number)
        return self._rows[1]

    def origins(self, step: int) -> list[str]:
        return [f"{ROLLOUTS}/round-{step // self.updates:06d}.jsonl"]

    def eval_rows(self) -> list[Row]:
        """One answer to each evaluation prompt, drawn now at the training temperature."""
        if not self.rollouts.evals:
            return []
        one = replace(self.rollouts.sampling, n=1)
        answered = self.rollouts.answer(self.rollouts.evals, one, seed=self.config.run.seed)
        return self._packed(self.rollouts.examples(answered, scale=False), 0)

    def loss(self, batch: Tensors) -> Outcome:
        outcome = (self.compute if torch.is_grad_enabled() else self.judge)(batch)
        stats = {name: pair for name, pair in outcome.stats.items() if self._first or name != SAMPLER_GAP}
        return replace(outcome, stats=stats)

    def report(self, means: dict[str, float]) -> dict[str, float]:
        return {}

    def samples(self, step: int) -> list[str]:
        return self.rollouts.samples(step)

    def _packed(self, examples: list[Example], epoch: int) -> list[Row]:
        listed = Listed(examples)
        packed = pack(listed.lengths, self.context, self.config.run.seed, epoch)
        return [[examples[int(i)] for i in row] for row in packed]


def check_counted_in_steps(config: Config) -> None:
    """DataError for keys that say how rows of files become steps: here a step's rows are answers that are yet to be drawn."""
    run, usual, name = config.run, Run(), config.method
    if not run.steps:
        raise DataError(f"run.steps: {name} draws its answers as it goes, so it is told in steps: --run.steps 100")
    if run.epochs not in (0, usual.epochs):
        raise DataError(f"run.epochs: {name} draws its answers as it goes; leave it out, --run.steps says how long")
    if run.rows != usual.rows:
        raise DataError(f"run.rows: a step of {name} learns from what {name}.prompts draws; leave it out")
    if config.data.overlong != Data().overlong:
        raise DataError(f"data.overlong: {name} cuts no prompts; leave it out, and prompts that are too long")


def shortfall(batch: Tensors) -> Outcome:
    """What answers lack to a full reward."""
    reward = batch.facts["reward"].sum()
    return Outcome(batch.sequences - reward, batch.sequences, {"reward": (reward, batch.sequences)})


def _sequence(prompt: Sequence[int], candidate: Candidate, advantage: float) -> Tokenized:
    assert candidate.tokens is not None
    assert candidate.tokens.logprobs is not None
    assert candidate.score is not None
    ids = np.array([*prompt, *candidate.tokens.ids], np.int64)
    weights, sampled = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
    weights[len(prompt) :] = 1
    sampled[len(prompt) :] = candidate.tokens.logprobs
    return Tokenized(ids, weights, {"sampled": sampled}, {"advantage": advantage, "reward": candidate.score})


def _by_sequence(values: Tensor, docs: Tensor) -> Iterator[np.ndarray]:
    """Of values [B, T], those of each sequence: what stands at the place before a token, as the token's own."""
    mine = docs >= 0
    sizes = docs[mine].bincount().tolist()
    for of_one in values[mine].float().cpu().split(sizes):
        yield np.concatenate([np.zeros(1, np.float32), of_one[:-1].numpy()])
