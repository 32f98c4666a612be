"""A small run of every method, from files, as a user tells it: for what is promised of all of them."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from made import BAD, GOOD, THINGS, labelled_rows, preference_rows, tokenizer, write_rows

from encoder_cases import VOCAB, encoder_oracle
from myna.modeldir.safetensors import read_safetensors
from myna.train import checkpoint
from myna.train.method import known
from myna.train.run import begin, configure

# What is run: a method, with the flags of its own.
CASES: dict[str, tuple[str, str]] = {
    "pretrain": ("texts", ""),
    "sft": ("chats", ""),
    "mtp": ("chats", "--mtp.heads 2"),
    "mtp frozen": ("texts", "--mtp.frozen true"),
    "distill": ("chats", "--distill.teacher {teacher} --distill.top_k 5"),
    "distill all": ("texts", "--distill.teacher {teacher} --distill.top_k 0"),
    "distill on_policy": (
        "asked",
        "--distill.teacher {teacher} --distill.top_k 0 --distill.on_policy true --distill.prompts 5 --distill.max_tokens 9",
    ),
    "dpo": ("preferences", "--dpo.beta 0.3"),
    "orpo": ("preferences", ""),
    "reward": ("preferences", ""),
    "kto": ("judged", ""),
    "classify": ("labelled", ""),
    "classify encoder": ("labelled", "--model.start {encoder} --data.context 56"),
    "contrastive": ("matched", ""),
    "contrastive encoder": ("matched", "--model.start {encoder} --data.context 56"),
    "grpo": ("asked", "--grpo.check contains --grpo.prompts 5 --grpo.group 4 --grpo.max_tokens 9"),
    "grpo again": (
        "asked",
        "--grpo.check contains --grpo.prompts 5 --grpo.group 4 --grpo.max_tokens 9 --grpo.updates 3 --grpo.beta 0.1",
    ),
}
assert {name.split()[0] for name in CASES} == {*known()}, "a method without a case"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME.jsonl and NAME-held.jsonl of every kind, and models to start from: `base`, a `teacher` of its tokenizer, and `bert`."""
    at = tmp_path_factory.mktemp("every")
    tokenizer(at / "words")
    encoder_oracle("bert", at / "bert")
    tokenizer(at / "bert", vocab=VOCAB)
    for kind, rows in _kinds().items():
        write_rows(at / f"{kind}.jsonl", rows[3:])
        write_rows(at / f"{kind}-held.jsonl", rows[:3])
    for name, depth in (("base", 2), ("teacher", 1)):  # of two layers, with two heads
        flags = (
            f"--model.depth {depth} --model.tokenizer {at / 'words'} --data.train {at / 'texts.jsonl'} --run.steps 2"
        )
        begin(configure("pretrain", None, [*flags.split(), "--data.context", "64", "--run.out", str(at / name)]))
    return at


def _kinds() -> dict[str, list[dict[str, Any]]]:
    said = [f"the {thing} is {word}" for thing in THINGS for word in GOOD]
    asked = [{"role": "user", "content": "what do you think?"}]
    return {
        "texts": [{"text": text} for text in said],
        "chats": [
            {"messages": [{"role": "user", "content": s[:7]}, {"role": "assistant", "content": s}]} for s in said
        ],
        "preferences": preference_rows(24),
        "judged": [{"prompt": f"{n}?", "completion": s, "label": n % 2 == 0} for n, s in enumerate(said)],
        "labelled": [*labelled_rows(6, seed=1)[:3], *labelled_rows(30)],
        "matched": [
            {"query": f"{b}, {a}", "positive": f"{b} is {a}", "negative": f"{b} is {c}"}
            for b in THINGS
            for a, c in zip(GOOD, BAD, strict=True)
        ],
        "asked": [{"messages": [{**asked[0], "content": f"{s}?"}], "target": s[4]} for s in said],
    }


def flags(case: str, files: Path, out: Path, *more: str) -> list[str]:
    """The method's name and all flags."""
    kind, own = CASES[case]
    usual = (
        f"--model.start {files / 'base/model'} --data.train {files / kind}.jsonl --data.eval {files / kind}-held.jsonl --data.context 64 "
        f"--run.rows 5 --run.micro 3 --run.epochs 0 --run.steps 6 --run.save 2 --run.evaluate 3 --optim.lr 1e-3 --optim.warmup 1 "
        f"--run.seed 3 --run.out {out}"
    )
    words = [*usual.split(), *own.format(teacher=files / "teacher/model", encoder=files / "bert").split(), *more]
    told = dict(batched(words))  # a key that comes again counts as it comes last
    if kind == "asked":
        del told["--run.rows"]
    return [case.split()[0], *chain(*told.items())]


def batched(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


def last(run: Path) -> dict[str, torch.Tensor]:
    """Everything in its last checkpoint."""
    place = checkpoint.steps(run)[-1]
    return {f"moment {n}": t for n, t in checkpoint.read_moments(place).items()} | checkpoint.read_weights(place)


def lines(run: Path) -> list[dict[str, Any]]:
    """Its log, but for how long things took."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def written(run: Path) -> dict[str, Any]:
    """What a run is for: the finished model's numbers, and its answers."""
    found: dict[str, Any] = {p.name: p.read_bytes() for p in (run / "rollouts").glob("*.jsonl")}
    for file in (run / "model").glob("*.safetensors"):
        found |= {name: bytes(stored.raw) for name, stored in read_safetensors(file).items()}
    return found
