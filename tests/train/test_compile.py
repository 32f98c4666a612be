"""Layers that torch.compile translated learn what the plain ones learn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from every import CASES, files, flags, last, lines
from made import tokenizer

from myna.records import DataError
from myna.train.run import begin, configure

__all__ = ["files"]
MORE = {"adapted": "--lora.rank 4", "few": "--lora.rank 4 --lora.kind dora --lora.base nf4"}


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def run(case: str, files: Path, out: Path, *more: str) -> None:
    method, *told = flags(case, files, out, *more)
    begin(configure(method, None, told))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *(f"sft {name}" for name in MORE)])
def test_translated_layers_learn_the_same(files: Path, tmp_path: Path, case: str) -> None:
    more = MORE.get(case.partition(" ")[2], "").split()
    case = case if case in CASES else case.partition(" ")[0]
    run(case, files, tmp_path / "plain", *more)
    torch._dynamo.utils.counters.clear()
    run(case, files, tmp_path / "translated", "--model.compile", "true", *more)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1, "nothing was translated but the trial"
    plain, translated = last(tmp_path / "plain"), last(tmp_path / "translated")
    assert plain.keys() == translated.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(
            translated[name], tensor, rtol=1e-3, atol=2e-4, msg=lambda said, n=name: f"{n}: {said}"
        )
    losses = [[line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("plain", "translated")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-5)


def test_where_nothing_can_be_translated_a_run_says_so(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no working C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(DataError, match=r"model\.compile.*\(no working C\+\+ compiler\)\. Leave it out"):
        run("sft", files, tmp_path / "run", "--model.compile", "true")


@pytest.mark.parametrize("more", ["--model.recompute true", "--model.experts 4"])
def test_what_torch_does_not_translate_is_refused(tmp_path: Path, more: str) -> None:
    tokenizer(tmp_path / "words")
    (tmp_path / "text.txt").write_text("one and two " * 40)
    told = f"--model.depth 1 --model.tokenizer {tmp_path / 'words'} --data.train {tmp_path / 'text.txt'} --run.out {tmp_path / 'run'}"
    with pytest.raises(DataError, match=r"model\.compile"):
        begin(
            configure("pretrain", None, [*told.split(), *more.split(), "--model.compile", "true", "--run.steps", "1"])
        )
