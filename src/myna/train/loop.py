"""The one training loop. A step:

    rows of the step -> micro-batches -> summed loss, summed gradients -> divide once by the step's units -> clip -> update

Sums until the end: how a step is cut into micro-batches, over how many ranks, and how many targets each has changes nothing
but rounding. Whatever is drawn, is drawn from (seed, step), so a run that was killed and resumed is the run that was not.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from myna.data import Batch, Row, collate
from myna.records import DataError, MynaError
from myna.train import checkpoint
from myna.train.balance import Balance
from myna.train.checkpoint import EMA, State
from myna.train.config import Config
from myna.train.method import Method, Outcome, Tensors
from myna.train.optim import lr_at, make_optimizers, set_lr
from myna.train.parallel import World, settle, share, share_like, standing, summing
from myna.train.progress import Progress, interruptible, tell
from myna.train.report import refresh
from myna.train.rundir import RunDir
from myna.train.trainee import Trainee

# Steps by which a gradient has reached everything that is trained: new weights that begin as zero hold back what is before
# them for one step, and a head of zeros before an adapter for another. LoRA's A waits for B.
REACHED = 3
MOST_SKIPPED = 5  # steps in a row whose gradient is not finite, after which there is nothing left to save


@dataclass
class Means:
    """Sums on their way to means: (sum, over how many)."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, outcome: Outcome) -> None:
        for name, (total, count) in {"loss": (outcome.loss.detach(), outcome.units), **outcome.stats}.items():
            total = torch.as_tensor(total, dtype=torch.float64).detach().cpu()
            self.sums[name] = self.sums.get(name, torch.zeros((), dtype=torch.float64)) + total
            self.counts[name] += count

    def over(self, world: World) -> dict[str, float]:
        names = sorted(self.sums)
        totals = world.sum_rows([float(self.sums[n]) for n in names] + [float(self.counts[n]) for n in names])
        return {n: t / c for n, t, c in zip(names, totals, totals[len(names) :], strict=False) if c}


class Loop:
    """Trains `trainee` by `method` as `config` says; `run` is where it is written down."""

    def __init__(self, trainee: Trainee, method: Method, config: Config, run: RunDir, world: World):
        self.trainee, self.method, self.config, self.run, self.world = trainee, method, config, run, world
        self.model = trainee.module
        settle(self.model)
        self.optimizers = make_optimizers(self.model, config.optim, world.orders)
        self.trained = trainee.trained()
        self.state = State()
        self.average = {n: p.detach().clone() for n, p in self.trained.items()} if config.optim.ema else {}
        self.balance = Balance(trainee.model, config.model.balance, world)
        self.bad = 0
        self.flops: tuple[float, float] | None = None  # of the machine a second, and of a token
        self.sinks: Callable[[dict[str, Any]], None] = lambda line: None
        self.unreached, self.watched = trainee.trained(), 0

    def train(self) -> bool:
        """Every step that is left. False if Ctrl-C or patience ended it before the last; all is saved then too."""
        run, steps, world = self.config.run, self.method.steps, self.world
        shown = Progress(steps, self.state, quiet=not world.is_main, flops=self.flops)
        with shown, interruptible(shown.stopping) as asked:
            while self.state.step < steps and not self.stale:
                line = self._step()
                self.note(line)
                shown.step(line, self.state)
                last = self.state.step == steps
                better = (last or self._due(run.evaluate)) and self._evaluate(shown)
                stop = world.any(asked()) or self.stale
                if last or stop or better or self._due(run.save):
                    self._save()
                if stop:
                    break
        if self.stale and self.state.step < steps:
            said = f"no better than {self.state.best:.4g} for {self.state.stale} evaluations"
            self.note({"step": self.state.step, "event": f"stopped: {said}"})
        return self.state.step == steps

    @property
    def stale(self) -> bool:
        """Whether it got no better for as long as patience lasts."""
        return 0 < self.config.run.patience <= self.state.stale

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _step(self) -> dict[str, Any]:
        """One step, and what is to be said of it."""
        started, number = time.perf_counter(), self.state.step
        torch.manual_seed(self.config.run.seed * 1_000_003 + number)
        rows = self.method.rows(number)
        means = Means()
        tokens = supervised = units = 0.0
        groups = [*self._groups(rows)]
        for done, (group, counts) in enumerate(groups, 1):
            summing(self.model, self.config.run.sum == "micro" or done == len(groups))
            batch = collate(group, self.method.context)
            outcome = self._outcome(batch, counts)
            if outcome.loss.requires_grad:
                outcome.loss.backward()
            means.add(outcome)
            units += outcome.units
            if counts:
                tokens, supervised = tokens + int((batch.docs >= 0).sum()), supervised + batch.supervised
        tokens, supervised, units = self.world.sum_rows([tokens, supervised, units])
        line = self._update(number, units) | means.over(self.world)
        line |= self.balance.step(number + 1, self.method.steps, learned=not self.bad)
        self.state.step += 1
        self.state.tokens += int(tokens)
        self.state.supervised += int(supervised)
        seconds = time.perf_counter() - started
        self.state.seconds += seconds
        return {"step": number, **line, "tokens": int(tokens), "supervised": int(supervised), "seconds": seconds}

    def _groups(self, rows: list[Row]) -> Iterator[tuple[list[Row], bool]]:
        """The micro-batches, of each this process's share, and whether it counts. All compute together or not at all, so one
        for whom no row is left computes somebody else's, which then counts for nothing."""
        size = self.config.run.micro or max(len(rows), 1)
        for start in range(0, len(rows), size):
            group = rows[start : start + size]
            mine = group[self.world.part :: self.world.parts]
            yield mine or group[:1], bool(mine)

    def _outcome(self, batch: Batch, counts: bool) -> Outcome:
        self.balance.counting = counts
        with self._computing():
            outcome = self.method.loss(Tensors.of(batch, self.trainee.device))
        return outcome if counts else outcome.none()

    def _update(self, number: int, units: float) -> dict[str, float]:
        """Divide, clip, change. A step whose gradient is not finite changes nothing, and is said and counted."""
        lr = lr_at(self.config.optim, number, self.method.steps)
        spread = [p.grad for p in self.trained.values() if p.grad is not None]
        grads = [share(grad) for grad in spread]
        torch._foreach_div_(grads, max(units, 1e-12))
        norm = self.world.norm(spread)
        if math.isfinite(norm) and units:
            self.bad = 0
            if norm and self.watched < REACHED:
                self._watch()
            clip = self.config.optim.clip
            if clip and norm > clip:
                torch._foreach_mul_(grads, clip / norm)
            set_lr(self.optimizers, lr)
            for optimizer in self.optimizers:
                optimizer.step()
            self._follow()
        else:
            self._skip(number, norm)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return {"lr": lr, "grad_norm": norm}

    def _watch(self) -> None:
        """MynaError if something is trained that no gradient reaches: it would stay as it is, and nothing else would say so.
        An expert that no token chose yet, waits."""
        self.watched += 1
        grads = {name: p.grad for name, p in self.unreached.items()}
        some = [float(g is not None) for g in grads.values()]
        moves = [float(g is not None and bool(share(g).any())) for g in grads.values()]
        found = self.world.sum(some + moves)  # every rank stops, or none
        there = dict(zip(grads, zip(found[: len(grads)], found[len(grads) :], strict=True), strict=True))
        self.unreached = {name: p for name, p in self.unreached.items() if not there[name][1]}
        last = self.watched == REACHED
        missing = [n for n in self.unreached if ".experts." not in n and (last or not there[n][0])]
        if missing:
            raise MynaError(
                f"no gradient reaches {missing[0]}, nor {len(missing) - 1} others of the {len(self.trained)} tensors that are "
                "trained: training would not change them. Is part of the model computed without gradients, or not used?"
            )

    def _skip(self, number: int, norm: float) -> None:
        self.bad += 1
        self.state.skipped += 1
        origins = self.method.origins(number)
        self.note({"step": number, "event": f"skipped: the gradient's norm is {norm}", "rows": origins})
        if self.bad >= MOST_SKIPPED:
            raise MynaError(
                f"{self.bad} steps in a row, the last step {number}, gave no finite gradient. Lower --optim.lr or look at "
                f"the rows of these steps ({', '.join(origins[:4])}, ...; {self.run.path}/log.jsonl names all)."
            )

    def _follow(self) -> None:
        """The running mean of the weights."""
        for name, mean in self.average.items():
            share(mean).lerp_(share(self.trained[name].detach()), 1 - self.config.optim.ema)

    @torch.no_grad()
    def _evaluate(self, shown: Progress) -> bool:
        """Means over the evaluation rows; true if their loss is the lowest so far. Weights and training are not touched."""
        means = Means()
        self.model.eval()
        with self.averaged():
            for group, counts in self._groups(self.method.eval_rows()):
                means.add(self._outcome(collate(group, self.method.context), counts))
            found = means.over(self.world)
            found |= self.method.report(found) if found else {}
            found = {name: value for name, value in found.items() if not name.startswith("_")}
            self._write_samples()
        self.model.train()
        if not found:
            return False
        better = self.state.best is None or found["loss"] < self.state.best
        if better:
            self.state.best, self.state.best_step = found["loss"], self.state.step
        self.state.stale = 0 if better else self.state.stale + 1
        self.note({"step": self.state.step, "eval": found})
        shown.evaluated(found, self.state.step, better)
        if self.world.is_main:
            refresh(self.run)
        return better

    def _write_samples(self) -> None:
        if not self.config.run.prompts:
            return
        with standing(self.model):
            if self.world.is_main and (texts := self.method.samples(self.state.step)):
                self.run.write(f"samples/step-{self.state.step}.md", "\n\n---\n\n".join(texts) + "\n")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running mean in the weights' place, if there is one."""
        kept = {name: self.trained[name].detach().clone() for name in self.average}
        self._set(self.average)
        try:
            yield
        finally:
            self._set(kept)

    def _check_finite(self) -> None:
        """MynaError for weights that are no numbers: to save them would push out a checkpoint that can be gone on from."""
        wrong = [name for name, p in self.trained.items() if not bool(torch.isfinite(share(p.detach())).all())]
        if self.world.any(bool(wrong)):
            raise MynaError(
                f"the weights ({', '.join(wrong[:3])}, ...) are no numbers after step {self.state.step}: nothing is written. "
                "Lower --optim.lr. Checkpoints from before are whole"
            )

    def _save(self) -> None:
        self._check_finite()
        self.state.log_bytes = self.run.log.size
        self.state.extra |= self.balance.state()
        weights = self.world.gather(self.trained | {EMA + name: mean for name, mean in self.average.items()})
        moments = self.world.gather(checkpoint.moments_of(self.model, self.optimizers))
        if self.world.is_main:
            checkpoint.save(self.run.path, self.state, weights, moments, self.config.run.keep)

    def resume(self, state: State, place: Path) -> None:
        """Go on from a checkpoint. What was logged after it will be done, and logged, again."""
        self._put(state, place)
        moments = self.world.dealt(checkpoint.read_moments(place))
        checkpoint.set_moments(self.model, self.optimizers, moments)
        self.state = state
        if self.world.is_main:
            self.run.log.cut(state.log_bytes)

    def choose(self) -> int:
        """Of a run with patience, put the weights of the best evaluation in the place of the last ones. Returns how many steps
        were done with the weights that are there then."""
        step, best = self.state.step, self.state.best_step
        if not self.config.run.patience or best == step:
            return step
        place = checkpoint.at(self.run.path, best)
        try:
            self._put(checkpoint.read_state(place), place)
        except DataError as e:
            self.note({"step": step, "event": f"the model is that of this step; the best is gone: {e}"})
            return step
        said = f"the model is that after step {best}, whose evaluation was the best: {self.state.best:.4g}"
        self.note({"step": step, "event": said})
        if self.world.is_main:
            tell("model", best, said)
        return best

    def _put(self, state: State, place: Path) -> None:
        """A checkpoint's weights, their running mean, and what balances experts."""
        weights = self.world.dealt(checkpoint.read_weights(place))
        if missing := self.trained.keys() - weights.keys():
            raise DataError(f"{place} has no {min(missing)}, which this run trains")
        self.average = {name: share_like(weights[EMA + name], self.trained[name]) for name in self.average}
        self._set({name: share_like(weights[name], p) for name, p in self.trained.items()})
        self.balance.restore(state.extra, state.step, self.method.steps)

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        settle(self.model)
        for name, value in weights.items():
            self.trained[name].copy_(value)

    def _computing(self) -> torch.autocast:
        return self.trainee.computing(self.config.model.precision)

    def note(self, line: dict[str, Any]) -> None:
        """A line of the log."""
        if self.world.is_main:
            self.run.log.append(line)
            self.sinks(line)
