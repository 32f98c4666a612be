"""What a config cannot be: numbers out of their range, and keys that nothing would follow from. Refused by name, never ignored."""

import pytest

from myna.records import DataError
from myna.train.config import Config
from myna.train.method import find, known
from myna.train.options import read_config
from myna.train.ranges import Part, Within
from myna.train.rules import check
from myna.train.run import configure

NEW = ("--model.depth", "2", "--model.tokenizer", "./words", "--data.train", "texts", "--run.out", "run")
OLD = ("--model.start", "base", "--data.train", "chats", "--run.out", "run")


def read(*flags: str, method: str = "sft", of: tuple[str, ...] = OLD) -> Config:
    return configure(method, None, [*of, *flags])


@pytest.mark.parametrize("method", sorted(known()))
def test_defaults_are_within_their_ranges(method: str) -> None:
    module = find(method)
    read_config(method, module.Options, module.DEFAULTS)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("optim.lr", "0 -1 nan inf"),
        ("optim.beta1", "1 1.5 -0.1"),
        ("optim.ema", "1 2"),
        ("optim.warmup", "-1 nan inf"),
        ("optim.decay", "3"),
        ("optim.floor", "7"),
        ("optim.clip", "-1"),
        ("optim.weight_decay", "-1"),
        ("run.rows", "0 -3"),
        ("run.steps", "-5"),
        ("run.epochs", "-1 nan inf"),
        ("run.micro", "-2"),
        ("run.keep", "0"),
        ("run.save", "-1"),
        ("run.seed", "-1 99999999999999999999999"),
        ("lora.rank", "-3"),
        ("lora.dropout", "1"),
        ("data.context", "0"),
        ("model.depth", "-1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(key: str, values: str) -> None:
    for value in values.split():
        with pytest.raises(DataError, match=rf"--{key}: .* is not at least|--{key}: .* is not more than"):
            read(f"--{key}", value)


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("dpo", "beta", "0"),
        ("dpo", "smoothing", "0.5"),
        ("grpo", "temperature", "0"),
        ("grpo", "group", "0"),
        ("grpo", "epsilon", "-0.1"),
        ("distill", "alpha", "1.5"),
        ("contrastive", "temperature", "-1"),
        ("kto", "desirable", "-1"),
        ("mtp", "heads", "17"),
        ("classify", "smoothing", "1"),
    ],
)
def test_so_are_a_methods_own(method: str, key: str, value: str) -> None:
    with pytest.raises(DataError, match=rf"--{method}\.{key}: .* is not"):
        read(f"--{method}.{key}", value, method=method)


def test_a_range_says_what_it_holds() -> None:
    (within,) = Part.__metadata__
    assert (str(within), str(Within(1)), str(Within(0, above=True))) == (
        "at least 0 and below 1",
        "at least 1",
        "more than 0",
    )
    assert within.holds(0)
    assert not within.holds(1)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--lora.kind dora", r"lora\.kind: .* --lora\.rank 8"),
        ("--lora.targets q_proj", r"lora\.targets: nothing is adapted"),
        ("--lora.base nf4", r"lora\.base: .* --lora\.rank"),
        ("--lora.start a --lora.rank 4", r"lora\.rank: .* has its own"),
        ("--lora.start a --lora.alpha 8", r"lora\.alpha: .* has its own"),
        ("--lora.start a --lora.kind dora", r"lora\.kind: .* has its own"),
        ("--lora.start a --lora.targets q_proj", r"lora\.targets: .* has its own"),
        ("--model.tokenizer ./words", r"model\.tokenizer: \./words is for a new model .* base has its own"),
        ("--model.experts 8", r"model\.experts: 8 is for a new model"),
        ("--run.evaluate 10", r"run\.evaluate: there is nothing to evaluate"),
        ("--run.patience 3 --run.evaluate 10 --run.prompts p.jsonl", r"run\.patience: .* --data\.eval"),
        ("--run.patience 3 --data.eval e.jsonl", r"run\.patience: .* --run\.evaluate"),
        ("--run.epochs 0", "how long"),
        ("--run.send bfloat16", r"run\.send bfloat16 .* --model\.precision bfloat16"),
    ],
)
def test_what_nothing_would_follow_from_is_refused(flags: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check(read(*flags.split()))


def test_what_is_honoured_is_not() -> None:
    check(read("--lora.rank", "4", "--lora.kind", "dora", "--run.evaluate", "5", "--run.prompts", "p.jsonl"))
    check(read("--lora.start", "runs/a/model", "--lora.dropout", "0.1"))
    check(read("--run.patience", "2", "--run.evaluate", "5", "--data.eval", "e.jsonl"))
    check(read("--model.experts", "8", of=NEW))
    check(read("--run.send", "bfloat16", "--model.precision", "bfloat16"))


def test_values_given_twice_are_not_half_forgotten() -> None:
    with pytest.raises(DataError, match=r"--data\.train is given twice"):
        configure("sft", None, ["--data.train", "a", "--data.train", "b"])
    with pytest.raises(DataError, match=r"--optim\.weight_decay is given twice"):
        configure("sft", None, ["--optim.weight-decay", "0.1", "--optim.weight_decay", "0.2"])


def test_a_key_without_its_section_is_known() -> None:
    with pytest.raises(DataError, match=r"--overlong names no section.* --data\.overlong"):
        read("--overlong", "split")
