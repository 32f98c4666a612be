"""Keys from defaults, files and flags: later wins, and what is not known is an error that names the nearest."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from myna.records import DataError
from myna.train.config import Config, Optim
from myna.train.method import find, known
from myna.train.options import SECTIONS, explain, meanings, read_config, to_yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Some keys.

    beta   how much
    kinds  which, of several
           on two lines
    exact  whether
    """

    beta: float = 0.1
    kinds: tuple[str, ...] = ()
    exact: bool = False


def read(*flags: str, file: str | None = None, defaults: dict[str, dict[str, object]] | None = None) -> Config:
    return read_config("mine", Options, defaults or {}, file, flags)


def test_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("method: mine\noptim: {lr: 0.5, clip: 2}\nmine: {beta: 0.3}\n")
    defaults = {"optim": {"lr": 0.1, "kind": "muon"}}
    assert read(defaults=defaults).optim == Optim(lr=0.1, kind="muon")
    config = read("--optim.clip", "3", "--mine.exact", file=str(file), defaults=defaults)
    assert config.optim == Optim(lr=0.5, clip=3.0, kind="muon")
    assert config.options == Options(beta=0.3, exact=True)


def test_flags_in_every_spelling() -> None:
    config = read(
        "--data.train", "a.jsonl", "b/:0.5", "--mine.exact=true", "--optim.lr=1e-3", "--run.steps", "9007199254740993"
    )
    assert config.data.train == ("a.jsonl", "b/:0.5")
    assert (config.options.exact, config.optim.lr, config.run.steps) == (True, 1e-3, 9007199254740993)
    assert read("--optim.weight-decay", "0.2").optim.weight_decay == 0.2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--optim.l", "1"), r"--optim.l is not a key of this method. Did you mean optim.lr\?"),
        (("--mine.lr", "1"), r"Did you mean optim.lr\?"),
        (("--optm.clip", "1"), r"Did you mean optim.clip\?"),
        (("--lr", "1"), "names no section"),
        (("--optim.lr", "fast"), "--optim.lr: 'fast' is not a number"),
        (("--run.steps", "1.5"), "--run.steps: '1.5' is not a whole number"),
        (("--optim.kind", "sgd"), "--optim.kind: 'sgd' is not one of adamw, muon"),
        (("--optim.lr", "1", "2"), "takes one value, not 2"),
        (("--optim.lr",), "'true' is not a number"),
        (("--mine.exact", "maybe"), "is not true or false"),
        (("stray",), "'stray' is not a flag"),
    ],
)
def test_a_wrong_flag_is_named(flags: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(*flags)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim: {lrr: 1}", "c.yaml: optim.lrr is not a key of this method. Did you mean optim.lr"),
        ("optim: {lr: [1, 2]}", "takes one value, not 2"),
        ("optim: {lr: true}", "c.yaml: optim.lr: True is not a number"),
        ("run: {steps: 1.5}", "1.5 is not a whole number"),
        ("optim: 3", "expected sections of keys"),
        ("- a", "expected sections of keys"),
        ("a: [", "cannot be read as YAML"),
        ("optim: {lr: 1, clip: 2, lr: 3}", "lr is said twice"),
        ("optim: {lr: 1}\nrun: {rows: 2}\noptim: {lr: 2}", "optim is said twice"),
        ("method: sft", "method is 'sft', and the command says 'mine'"),
        ("run: {out: !!python/object/apply:os.getcwd []}", "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=says):
        read(file=str(file))


def test_a_config_written_and_read_is_the_same(tmp_path: Path) -> None:
    config = read("--data.train", "诗.jsonl", "b", "--optim.lr", "1e-05", "--mine.kinds", "x", "--model.recompute")
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert read(file=str(file)) == config


@pytest.mark.parametrize(
    "cls", [*SECTIONS.values(), *(find(name).Options for name in known())], ids=lambda c: c.__qualname__
)
def test_every_key_says_what_it_means(cls: type) -> None:
    assert {f.name for f in fields(cls)} == meanings(cls).keys()
    assert all(meanings(cls).values())


def test_help_shows_every_key_with_its_default() -> None:
    text = explain("mine", Options, {"optim": {"lr": 0.25}})
    assert "--optim.lr 0.25" in text
    assert "which, of several on two lines" in text
    for name, cls in SECTIONS.items():
        assert all(f"--{name}.{f.name} " in text for f in fields(cls))


def test_a_method_that_there_is_not_is_named() -> None:
    with pytest.raises(DataError, match=r"'sftt' is not a method; these are: .*pretrain.*sft"):
        find("sftt")
