"""A start from the packed weights on disk is the start that packed them, bit for bit, and never one of other weights."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from myna.kernels import library
from myna.model import Causal, Decoder, describe, hf_state, load, load_model
from myna.model.config import Config
from myna.model.families import read_spec
from myna.modeldir import ModelDir, Stored, Weights, packed_bytes

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing is packed")

CONFIG = {
    "model_type": "qwen2", "vocab_size": 50, "hidden_size": 36, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def write_model(place: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    decoder = Decoder(read_spec(Config(CONFIG)))
    place.mkdir(exist_ok=True)
    tensors = {k: torch.randn_like(v) * 0.1 for k, v in hf_state(decoder).items()}
    save_file(tensors, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))
    return write_model(tmp_path / "model")


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever weights are read and packed."""
    done: list[str] = []
    really: Callable[..., None] = load._fill_all
    monkeypatch.setattr(load, "_fill_all", lambda *args: (done.append("packed"), really(*args)))
    return done


def tensors(decoder: Decoder) -> dict[str, torch.Tensor]:
    return dict(decoder.named_parameters()) | dict(decoder.named_buffers())


def same(a: Decoder, b: Decoder) -> bool:
    mine, others = tensors(a), tensors(b)
    assert mine.keys() == others.keys()
    return all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.parametrize("precision", ["int8", "int4", "mixed"])
def test_a_second_start_reads_no_weights_and_has_the_same(model: Path, packs: list[str], precision: str) -> None:
    plain = load_model(replace(opened := ModelDir.open(model), weights=Weights(opened.weights)), precision)
    first = load_model(ModelDir.open(model), precision)
    assert packs == ["packed"] * 2
    second = load_model(ModelDir.open(model), precision)
    assert packs == ["packed"] * 2
    assert set(packed_bytes(model)) == {precision}
    assert same(first, plain)
    assert same(second, plain)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        logits = [one.logits(one(ids, ids, Causal())) for one in (plain, second)]
    assert torch.equal(*logits)


def test_what_is_loaded_may_be_written_to_and_does_not_reach_the_disk(model: Path) -> None:
    load_model(ModelDir.open(model), "int8")
    spoilt, clean = load_model(ModelDir.open(model), "int8"), load_model(ModelDir.open(model), "int8")
    with torch.no_grad():
        for tensor in spoilt.state_dict().values():
            tensor.zero_()
    assert same(load_model(ModelDir.open(model), "int8"), clean)
    assert not same(spoilt, clean)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what a process maps")
def test_packed_weights_are_mapped_and_not_copied(model: Path) -> None:
    load_model(ModelDir.open(model), "int8")
    decoder = load_model(ModelDir.open(model), "int8")
    addresses = {t.data_ptr() for t in decoder.state_dict().values()}
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "int8.safetensors" in line]
    spans = [[int(at, 16) for at in line[0].split("-")] for line in maps]
    assert all(any(begin <= at < end for begin, end in spans) for at in addresses)


def test_other_weights_are_packed_anew(model: Path, packs: list[str]) -> None:
    old = load_model(ModelDir.open(model), "int8")
    stat = (model / "model.safetensors").stat()
    write_model(model, seed=1)
    os.utime(model / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not same(load_model(ModelDir.open(model), "int8"), old)
    assert len(packs) == 2


def test_weights_replaced_while_they_are_loaded_are_not_kept_as_the_new_ones(model: Path) -> None:
    opened = ModelDir.open(model)
    (model / "model.safetensors").rename(model.parent / "old")
    write_model(model, seed=1)
    old = load_model(opened, "int8")
    assert not same(load_model(ModelDir.open(model), "int8"), old)


def test_another_config_is_packed_anew(model: Path, packs: list[str]) -> None:
    load_model(ModelDir.open(model), "int8")
    (model / "config.json").write_text(json.dumps(CONFIG | {"rope_theta": 5.0}))
    load_model(ModelDir.open(model), "int8")
    assert len(packs) == 2


def test_another_version_of_the_code_packs_anew(model: Path, packs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(ModelDir.open(model), "int8")
    monkeypatch.setattr(load, "_code", lambda: "another")
    load_model(ModelDir.open(model), "int8")
    assert len(packs) == 2


@pytest.mark.parametrize(
    "file",
    ["kernels/native/fit.h", "kernels/formats.py", "model/repack.py", "model/families/llama.py", "modeldir/gguf.py"],
)
def test_a_version_is_another_when_anything_that_reads_or_packs_differs(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("kernels", "model", "modeldir"):
        shutil.copytree(Path(load.myna.__file__).parent / room, tmp_path / room)
    before = load._code.__wrapped__()
    monkeypatch.setattr(load.myna, "__file__", str(tmp_path / "__init__.py"))
    assert load._code.__wrapped__() == before
    (tmp_path / file).open("a").write(" ")
    assert load._code.__wrapped__() != before


def test_a_shorter_model_of_the_same_weights_is_not_packed_anew(model: Path, packs: list[str]) -> None:
    load_model(ModelDir.open(model), "int8")
    load_model(ModelDir.open(model), "int8", max_len=8)
    assert len(packs) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_not_packed_is_not_kept(model: Path, precision: str) -> None:
    load_model(ModelDir.open(model), precision)
    assert packed_bytes(model) == {}


def test_weights_changed_in_memory_are_neither_kept_nor_taken_from_disk(model: Path) -> None:
    opened = ModelDir.open(model)
    kept = load_model(opened, "int8")

    def times(factor: int) -> Decoder:
        found = {name: Stored(name, s.shape, s.kind, s.raw * factor) for name, s in describe(opened)[1].items()}
        return load_model(replace(opened, weights=Weights(found)), "int8")

    assert not same(times(0), kept)
    assert same(times(1), kept)
    assert same(load_model(ModelDir.open(model), "int8"), kept)
