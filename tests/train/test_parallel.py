"""How many processes train is nobody's business: the oracle of two is the loop in one."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from every import CASES as EVERY
from every import files, flags, last, lines
from made import tokenizer
from several import Several, several
from tiny import config, loop, trainee
from torch.distributed.fsdp import fully_shard

from myna.model import MoE, Norm, load_model
from myna.model.spec import Biases
from myna.modeldir import ModelDir
from myna.records import Candidate, Conversation, DataError, jsonl
from myna.train import checkpoint
from myna.train.config import Config, Lora, Model, Optim, Run
from myna.train.loop import Loop
from myna.train.method import Tensors
from myna.train.optim import Muon
from myna.train.parallel import ALONE, World, share_like, whole
from myna.train.peft import adapt
from myna.train.run import Ended, begin, configure
from myna.train.tensor_parallel import check
from myna.train.trainee import Trainee

__all__ = ["files"]
EXACT = 1e-6
RUN = Run(steps=6, rows=5, micro=3, evaluate=3, save=2)  # of five rows, three and two at once: shares are never even
OPTIM = Optim(lr=1e-3, warmup=2, ema=0.9)
USUAL = config(optim=OPTIM, run=RUN)


@pytest.fixture(scope="module")
def four() -> Iterator[Several]:
    with several(4) as found:
        yield found


@pytest.fixture(scope="module")
def two() -> Iterator[Several]:
    with several(2) as found:
        yield found


def made(of: Config, **spec: Any) -> Trainee:
    recompute = spec.pop("recompute", False)
    found = trainee(**spec)
    if recompute:
        for block in found.model.layers:
            block.forward = partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)
    return adapt(found, of.lora, of.run.seed) if of.lora.rank else found


def train(world: World, path: Path, of: Config, spec: dict[str, Any], resume: bool = False, stop: int = 0) -> Any:
    """Weights, running means and moments after a run, or after `stop` steps of it."""
    path.mkdir(exist_ok=True)
    world = world.sharing(of.run.tensor)
    running = loop(path, of, made(of, **spec), world)
    if resume:
        found = checkpoint.latest(path)
        assert found
        running.resume(*found[:2])
    if stop:
        _stop_after(running, stop)
    running.train()
    return state(running)


def _stop_after(running: Loop, stop: int) -> None:
    step = running._step

    def until() -> dict[str, Any]:
        line = step()
        running.config = replace(
            running.config, run=replace(running.config.run, patience=int(running.state.step >= stop))
        )
        running.state.best, running.state.stale = 0.0, 1
        return line

    running._step = until  # type: ignore[method-assign]


def state(of: Loop) -> dict[str, torch.Tensor]:
    moments = checkpoint.moments_of(of.model, of.optimizers)
    return of.world.gather({**of.trained, **{f"ema:{n}": t for n, t in of.average.items()}, **moments})


def assert_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], within: float = EXACT) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            other[name], tensor, atol=within, rtol=0, msg=lambda said, name=name: f"{name}: {said}"
        )


def assert_same_log(one: Path, other: Path, within: float = EXACT, but: tuple[str, ...] = ()) -> None:
    mine, theirs = lines(one), lines(other)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if key in but:
                continue
            near = value if isinstance(value, str | list) else pytest.approx(value, abs=10 * within, rel=10 * within)
            assert b[key] == near, key


def failing(world: World, rank: int) -> float:
    """One fails while the other waits for it."""
    assert world.rank != rank, "as it was told"
    return world.sum([1.0])[0]


@pytest.mark.slow
def test_a_job_that_failed_leaves_the_next_alone(two: Several) -> None:
    """Of the tests here themselves."""
    with pytest.raises(AssertionError, match=r"process 1:(.|\n)*as it was told"):
        two(failing, 1)
    assert two(failing, 2) == [2.0, 2.0]


CASES: dict[str, tuple[Config, dict[str, Any]]] = {
    "uneven": (USUAL, {}),
    "one row": (config(optim=OPTIM, run=replace(RUN, rows=1, micro=0)), {}),
    "own head": (USUAL, {"tied": False}),
    "experts": (
        config(optim=OPTIM, model=Model(balance=1e-2), run=replace(RUN, rows=2, micro=1)),
        {"moe": MoE(experts=5, top_k=2, hidden=8, norm_topk=False)},
    ),
    "recomputed": (USUAL, {"recompute": True}),
    "muon": (config(optim=replace(OPTIM, kind="muon"), run=RUN), {}),
    "summed each time": (config(optim=OPTIM, run=replace(RUN, sum="micro")), {}),
    "lora": (config(optim=OPTIM, run=RUN, lora=Lora(rank=2)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(two: Several, tmp_path: Path, case: str) -> None:
    """Weights, moments, running means and log, where shares of rows are uneven, and so are the counts of what is supervised."""
    of, spec = CASES[case]
    within = (
        1e-4 if case == "muon" else EXACT
    )  # its products are in bfloat16, where a last bit of a gradient is a last bit of 8
    alone = train(ALONE, tmp_path / "one", of, spec)
    main, other = two(train, tmp_path / "two", of, spec)
    assert_alike(alone, main, within)
    assert other == {}
    assert_same_log(tmp_path / "one", tmp_path / "two", within)


USUALLY = ("dpo", "grpo again")  # what is known before the first step, and what is drawn; the others are as long


@pytest.mark.parametrize("case", [c if c in USUALLY else pytest.param(c, marks=pytest.mark.slow) for c in EVERY])
def test_every_method_is_the_same_in_two_processes(two: Several, files: Path, tmp_path: Path, case: str) -> None:
    """From files to the finished model, with evaluations: heads that are called from outside of the decoder, a reference before
    the first step, KTO's drift before each, vectors of the whole step, answers that both draw."""
    # AdamW divides by the gradient's size: where that is nearly 0, its rounding is moved by some of the rate.
    ended = whole_run(ALONE, flags(case, files, tmp_path / "one", "--optim.lr", "1e-5"))
    assert isinstance(ended, Ended), ended
    assert ended.whole
    both = two(whole_run, flags(case, files, tmp_path / "two", "--optim.lr", "1e-5"))
    assert both == [Ended(tmp_path / "two", True, tmp_path / "two/model")] * 2
    assert_alike(last(tmp_path / "one"), last(tmp_path / "two"))
    assert_same_log(tmp_path / "one", tmp_path / "two")
    mine, theirs = (
        [(c.text, c.score) for file in sorted((tmp_path / run / "rollouts").glob("*.jsonl")) for c in candidates(file)]
        for run in ("one", "two")
    )
    assert mine == theirs


def candidates(file: Path) -> Iterator[Candidate]:
    return (candidate for row in jsonl.read(file, Conversation) for candidate in row.candidates)


# Processes, and how many of them compute each layer together.
LAYOUTS = [((2, 1), (1, 1)), ((1, 1), (2, 2)), ((2, 2), (2, 1))]


@pytest.mark.parametrize(("begin", "go_on"), LAYOUTS)
def test_a_run_goes_on_in_another_layout(
    two: Several, tmp_path: Path, begin: tuple[int, int], go_on: tuple[int, int]
) -> None:
    spec = {"kv_heads": 2}
    whole = train(ALONE, tmp_path / "whole", USUAL, spec)

    def run(layout: tuple[int, int], *more: Any) -> Any:
        of = in_layers(USUAL, layout[1])
        if layout[0] == 1:
            return train(ALONE, tmp_path / "cut", of, spec, *more)
        return two(train, tmp_path / "cut", of, spec, *more)[0]

    run(begin, False, 2)
    assert [p.name for p in checkpoint.steps(tmp_path / "cut")] == ["step-000002"]
    run(go_on, True, 4)
    again = run(begin, True)
    assert_alike(whole, again)
    assert_same_log(tmp_path / "whole", tmp_path / "cut")


GENTLE = config(optim=replace(OPTIM, lr=2e-4), run=RUN)  # keys' biases have no gradient but rounding
SPLIT: dict[str, tuple[Config, dict[str, Any]]] = {
    "usual": (USUAL, {"kv_heads": 2, "heads": 4, "qk_norm": True}),
    "biases": (GENTLE, {"kv_heads": 2, "heads": 2, "biases": Biases(qkv=True, out=True, mlp=True), "gated": False}),
    "own head, layer norms": (
        USUAL,
        {"kv_heads": 2, "heads": 2, "tied": False, "norm": Norm("layer"), "post_norms": True},
    ),
    "recomputed": (USUAL, {"kv_heads": 2, "heads": 4, "recompute": True, "qk_norm": True}),
    "muon": (config(optim=replace(OPTIM, kind="muon"), run=RUN), {"kv_heads": 2, "heads": 4}),
}


def in_layers(of: Config, tensor: int) -> Config:
    return replace(of, run=replace(of.run, tensor=tensor))


@pytest.mark.parametrize("case", SPLIT)
def test_two_that_compute_each_layer_together_are_one(two: Several, tmp_path: Path, case: str) -> None:
    of, spec = SPLIT[case]
    within = 1e-4 if case == "muon" else EXACT
    alone = train(ALONE, tmp_path / "one", of, spec)
    main, other = two(train, tmp_path / "two", in_layers(of, 2), spec)
    assert_alike(alone, main, within)
    assert other == {}
    assert_same_log(tmp_path / "one", tmp_path / "two", within)


@pytest.mark.slow
@pytest.mark.parametrize("case", SPLIT)
def test_two_pairs_are_one(four: Several, tmp_path: Path, case: str) -> None:
    """Rows over pairs, layers over the two of each."""
    of, spec = SPLIT[case]
    within = 1e-4 if case == "muon" else EXACT
    alone = train(ALONE, tmp_path / "one", of, spec)
    main, *_ = four(train, tmp_path / "four", in_layers(of, 2), spec)
    assert_alike(alone, main, within)
    assert_same_log(tmp_path / "one", tmp_path / "four", within)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in EVERY if "grpo" not in c and "on_policy" not in c])
def test_every_method_learns_the_same_in_split_layers(two: Several, files: Path, tmp_path: Path, case: str) -> None:
    gently = ("--optim.lr", "1e-5")
    assert whole_run(ALONE, flags(case, files, tmp_path / "one", *gently)).whole
    both = two(whole_run, flags(case, files, tmp_path / "two", *gently, "--run.tensor", "2"))
    assert both == [Ended(tmp_path / "two", True, tmp_path / "two/model")] * 2
    assert_alike(last(tmp_path / "one"), last(tmp_path / "two"))
    # Before the first step an answer is as likely as it was, and rounding says which side of KTO's drift it is on.
    assert_same_log(tmp_path / "one", tmp_path / "two", but=("accuracy",) if case == "kto" else ())


@pytest.mark.parametrize(
    ("processes", "told", "spec", "says"),
    [
        (3, USUAL, {}, "of 3 processes"),
        (1, USUAL, {}, "of 1 process"),
        (2, USUAL, {"kv_heads": 1}, "1 heads of keys and values"),
        (2, USUAL, {"kv_heads": 2, "hidden": 23}, "23 channels"),
        (2, USUAL, {"kv_heads": 2, "moe": MoE(experts=4, top_k=2, hidden=8, norm_topk=False)}, "experts"),
        (2, replace(USUAL, lora=Lora(rank=2)), {"kv_heads": 2}, "adapters"),
        (2, replace(USUAL, run=replace(RUN, prompts="a.jsonl")), {"kv_heads": 2}, "answers are drawn"),
        (2, replace(USUAL, method="grpo"), {"kv_heads": 2}, "answers are drawn"),
    ],
)
def test_what_cannot_be_split_is_refused(processes: int, told: Config, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        check(in_layers(told, 2), trainee(**spec).model, processes)


def traffic(world: World, path: Path, of: Config) -> Any:
    """How often gradients were summed in a step, as what the weights of a layer stood while it computed, what a share is."""
    path.mkdir(exist_ok=True)
    running = loop(path, of, None, world)
    seen = set()
    layer = running.trainee.model.layers[0]
    layer.register_forward_pre_hook(lambda *_: seen.add(next(layer.parameters()).dtype), prepend=False)
    sums = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    with patch.object(dist, sums, wraps=getattr(dist, sums)) as summed:
        line = running._step()
    return summed.call_count, seen, {p.dtype for p in running.trained.values()}, line["loss"]


def test_gradients_are_summed_once_a_step_unless_told_otherwise(two: Several, tmp_path: Path) -> None:
    run = replace(RUN, rows=8, micro=2)
    once, *_ = two(traffic, tmp_path / "a", config(run=run))[0]
    each, *_ = two(traffic, tmp_path / "b", config(run=replace(run, sum="micro")))[0]
    assert once == 3  # two layers, and what is around them
    assert each == 4 * once


def test_weights_travel_in_few_bits_only_if_told(two: Several, tmp_path: Path) -> None:
    usual = config(run=RUN, model=Model(precision="bfloat16"))
    _, whole, kept, loss = two(traffic, tmp_path / "a", usual)[0]
    _, short, still, near = two(traffic, tmp_path / "b", replace(usual, run=replace(RUN, send="bfloat16")))[0]
    assert (whole, kept) == ({torch.float32}, {torch.float32})
    assert (short, still) == ({torch.bfloat16}, {torch.float32})
    assert near == pytest.approx(loss, rel=0.01)


def orthogonal(world: World, spread: bool) -> torch.Tensor:
    """A matrix after three steps of Muon with gradients that are the same everywhere."""
    drawn = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(16, 37, bias=False)
    layer.weight.data = torch.randn(37, 16, generator=drawn)
    if spread:
        fully_shard(layer)
    muon = Muon([layer.weight], lr=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        layer.weight.grad = share_like(torch.randn(37, 16, generator=drawn), layer.weight)
        muon.step()
    return whole(layer.weight.detach())


def test_muon_does_not_see_that_a_matrix_is_spread(two: Several) -> None:
    alone = orthogonal(ALONE, False)
    assert all(torch.equal(alone, found) for found in two(orthogonal, True))


def broken(world: World, path: Path, bad: set[int]) -> Any:
    """A run in which the row that the last process has of these steps gives no number."""
    path.mkdir(exist_ok=True)
    running = loop(path, USUAL, None, world)
    loss = running.method.compute  # type: ignore[attr-defined]

    def compute(batch: Tensors) -> Any:
        found = loss(batch)
        here = running.state.step in bad and world.rank == world.size - 1 and torch.is_grad_enabled()
        return replace(found, loss=found.loss * float("nan")) if here else found

    object.__setattr__(running.method, "compute", compute)
    running.train()
    return running.state.skipped, state(running)


def test_what_one_cannot_learn_from_all_skip(two: Several, tmp_path: Path) -> None:
    skipped, alone = broken(ALONE, tmp_path / "one", {1, 4})
    (main, found), (other, _) = two(broken, tmp_path / "two", {1, 4})
    assert skipped == main == other == 2
    assert_alike(alone, found)
    assert [line["step"] for line in lines(tmp_path / "two") if "event" in line] == [1, 4]


def interrupted(world: World, path: Path) -> int:
    """How far a run comes whose last process alone is interrupted in its third step."""
    path.mkdir(exist_ok=True)
    running = loop(path, USUAL, None, world)
    step = running._step

    def until() -> dict[str, Any]:
        if running.state.step == 2 and world.rank == 1:
            signal.raise_signal(signal.SIGINT)
        return step()

    running._step = until  # type: ignore[method-assign]
    assert not running.train()
    return running.state.step


def test_an_interrupt_of_one_ends_and_saves_all(two: Several, tmp_path: Path) -> None:
    assert two(interrupted, tmp_path / "run") == [3, 3]
    assert checkpoint.steps(tmp_path / "run")[-1].name == "step-000003"


def whole_run(world: World, told: list[str]) -> Any:
    try:
        return begin(configure(told[0], None, told[1:]), world)
    except (DataError, SystemExit) as e:
        return str(e)


def test_a_run_of_two_leaves_what_a_run_of_one_does(two: Several, tmp_path: Path) -> None:
    """From files to a model directory, with samples; and what cannot be is told by one of them alone."""
    tokenizer(tmp_path / "words")
    for name, letters in (("train", "abcdef"), ("held", "xyz")):
        rows = [{"text": f"The {a} of {b} is {a}{b}."} for a in letters for b in "ijkl"]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = tmp_path / "held.jsonl"
    of = (
        f"pretrain --model.depth 1 --model.tokenizer {tmp_path / 'words'} --data.train {tmp_path / 'train.jsonl'} --data.eval {held} "
        f"--run.prompts {held} --data.context 48 --run.rows 3 --run.steps 4 --optim.lr 1e-3 --optim.ema 0.5 --run.out"
    ).split()
    one = whole_run(ALONE, [*of, str(tmp_path / "one")])
    both = two(whole_run, [*of, str(tmp_path / "two")])
    assert one.whole
    assert both[0] == both[1] == Ended(tmp_path / "two", True, tmp_path / "two/model")
    mine, theirs = (load_model(ModelDir.open(tmp_path / name / "model")).state_dict() for name in ("one", "two"))
    assert_alike(mine, theirs)
    assert_same_log(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two/samples/step-4.md").exists()
    told, silent = two(whole_run, ["sft", *of[1:], str(tmp_path / "refused")])
    assert "is text, and conversations are wanted" in told
    assert silent == "2"
