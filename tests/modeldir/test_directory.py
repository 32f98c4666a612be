"""Opening model directories: Hugging Face's, ours, and hostile ones."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modeldir_tiny import hf_tensors, tiny_model, write_gguf
from safetensors.torch import save_file

from myna.modeldir import ModelDir, facts
from myna.modeldir.files import read_json
from myna.modeldir.from_gguf import build_from_gguf
from myna.records import ModelDirError

CONFIG: dict[str, Any] = {"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 2}


def tensors() -> dict[str, torch.Tensor]:
    layers = {f"model.layers.{i}.mlp.up_proj.weight": torch.ones(6, 4) for i in range(2)}
    return {"model.embed_tokens.weight": torch.ones(8, 4), "lm_head.weight": torch.zeros(8, 4), **layers}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A directory with as little as opens."""
    directory = tmp_path / "plain"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), directory / "model.safetensors")
    return directory


def test_the_digest_follows_the_hashes_that_are_recorded(plain: Path) -> None:
    assert ModelDir.open(plain).digest == ""
    seen = set()
    for name, hash in (("config.json", "a"), ("config.json", "b"), ("model.safetensors", "a")):
        facts = {"bytes": (plain / name).stat().st_size, "sha256": hash * 64}
        (plain / "lineage.json").write_text(json.dumps({"files": {name: facts}}))
        seen.add(ModelDir.open(plain).digest)
    assert [len(digest) for digest in seen] == [64] * 3


def shard(directory: Path) -> None:
    """Split model.safetensors in two, with an index."""
    (directory / "model.safetensors").unlink()
    parts, index = ({}, {}), {}
    for i, (name, tensor) in enumerate(tensors().items()):
        parts[i % 2][name] = tensor
        index[name] = f"model-{i % 2 + 1:05}-of-00002.safetensors"
    for i, part in enumerate(parts):
        save_file(part, directory / f"model-{i + 1:05}-of-00002.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_single_and_sharded_hold_the_same_tensors(plain: Path) -> None:
    single = {name: stored.data.tobytes() for name, stored in ModelDir.open(plain).weights.items()}
    shard(plain)
    assert {name: stored.data.tobytes() for name, stored in ModelDir.open(plain).weights.items()} == single


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gpt2"])
def test_what_transformers_saves_opens(arch: str, tmp_path: Path) -> None:
    tiny_model(arch).save_pretrained(tmp_path, max_shard_size="20KB")
    model = ModelDir.open(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1, model.config["model_type"]) == (True, arch)


def test_a_tied_model_needs_no_output_matrix_and_an_untied_one_does(plain: Path) -> None:
    save_file({k: v for k, v in tensors().items() if k != "lm_head.weight"}, plain / "model.safetensors")
    (plain / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    assert facts(plain).tied
    (plain / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": False}))
    with pytest.raises(ModelDirError, match=r"no lm_head\.weight"):
        ModelDir.open(plain)


def change_config(**keys: Any) -> Callable[[Path], None]:
    return lambda d: (d / "config.json").write_text(json.dumps({**CONFIG, **keys})) and None


def change_index(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        shard(directory)
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        change(index["weight_map"])
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def only_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def link_out(directory: Path) -> None:
    outside = directory.parent / "outside.safetensors"
    (directory / "model.safetensors").rename(outside)
    (directory / "model.safetensors").symlink_to(outside)


def pipe(name: str) -> Callable[[Path], None]:
    """Whoever reads it waits for ever."""

    def spoil(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return spoil


EMBED = "model.embed_tokens.weight"
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "not a JSON object"),
    "config is not JSON": (lambda d: (d / "config.json").write_text("{"), "not JSON"),
    "config is a bomb": (lambda d: (d / "config.json").write_text('{"a":' * 99_999), "not JSON"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "holds no weights"),
    "wrong vocabulary": (change_config(vocab_size=9), r"shape \(8, 4\); config.json says vocabulary 9"),
    "wrong width": (change_config(hidden_size=5), "width 5"),
    "missing layers": (change_config(num_hidden_layers=3), "says 3 layers; the weights hold layers 0 to 1"),
    "absurdly many layers": (change_config(num_hidden_layers=10**12), "says 1000000000000 layers"),
    "a pipe for weights": (pipe("model.safetensors"), "not a plain file"),
    "a pipe for a config": (pipe("config.json"), "not a plain file"),
    "a link to itself": (
        lambda d: ((d / "config.json").unlink(), (d / "config.json").symlink_to("config.json")),
        "leads nowhere",
    ),
    "endless name": (change_index(lambda m: m.update({EMBED: "x" * 5000 + ".safetensors"})), "leads nowhere"),
    "vocabulary is text": (change_config(vocab_size="8"), "positive integer"),
    "only a pickle": (only_pickle, r"pytorch_model\.bin is a pickle.*save_pretrained"),
    "index names a pickle": (
        change_index(lambda m: m.update({EMBED: "pytorch_model.bin"})),
        r"names pytorch_model\.bin: a pickle",
    ),
    "index leaves": (change_index(lambda m: m.update({EMBED: "../outside.safetensors"})), "leaves the directory"),
    "index is absolute": (change_index(lambda m: m.update({EMBED: "/etc/x.safetensors"})), "leaves the directory"),
    "index lies": (change_index(lambda m: m.update({EMBED: "model-00002-of-00002.safetensors"})), "which .*index"),
    "tensor not in shard": (
        change_index(lambda m: m.update({"x": "model-00002-of-00002.safetensors"})),
        "lacks tensor 'x'",
    ),
    "shard missing": (change_index(lambda m: m.update({"x": "model-00003-of-00003.safetensors"})), "lacks model-00003"),
    "link outside": (link_out, "outside the directory"),
    "template too big": (lambda d: (d / "chat_template.jinja").write_text("x" * 2_000_000), "at most 1048576"),
    "template is a number": (lambda d: (d / "tokenizer_config.json").write_text('{"chat_template": 3}'), "not a text"),
    "both kinds": (lambda d: (d / "model.gguf").write_text("x"), "holds both"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_directories_are_refused_by_name(case: str, plain: Path) -> None:
    spoil, says = SPOILT[case]
    spoil(plain)
    with pytest.raises(ModelDirError, match=says) as error:
        ModelDir.open(plain)
    assert str(plain) in str(error.value)


@pytest.mark.parametrize("config", [{}, {"model_type": "rwkv"}, {"model_type": ["llama"]}])
def test_a_gguf_file_beside_another_models_config_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model("llama")
    write_gguf(tmp_path / "model.gguf", "llama", model, hf_tensors(model, tmp_path / "hf"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelDirError, match=r"config\.json beside it says model_type"):
        ModelDir.open(tmp_path)
    build_from_gguf(tmp_path)
    right = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**right, "num_attention_heads": "many"}))
    with pytest.raises(ModelDirError, match="many heads cannot share"):
        ModelDir.open(tmp_path)


def test_a_hub_cache_snapshot_opens_through_its_links_but_not_beyond(plain: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--owner--name"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for i, file in enumerate(plain.iterdir()):
        shutil.copy(file, repo / "blobs" / f"hash{i}")
        (snapshot / file.name).symlink_to(os.path.join("..", "..", "blobs", f"hash{i}"))
    assert len(ModelDir.open(snapshot).weights) == 4
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(plain / "config.json")
    with pytest.raises(ModelDirError, match="outside the directory"):
        ModelDir.open(snapshot)


def test_code_and_pickles_beside_the_weights_are_reported_and_not_used(plain: Path) -> None:
    (plain / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_x.X"}}))
    (plain / "modeling_x.py").write_text("raise SystemExit")
    (plain / "training_args.bin").write_bytes(b"\x80\x04.")
    warnings = " ".join(ModelDir.open(plain).warnings)
    assert "auto_map" in warnings
    assert "modeling_x.py" in warnings
    assert "training_args.bin" in warnings


def test_the_template_comes_from_its_file_or_the_tokenizers_config(plain: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (plain / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert ModelDir.open(plain).chat_template == "D"
    (plain / "chat_template.jinja").write_text("J 你好")
    assert ModelDir.open(plain).chat_template == "J 你好"


def test_facts_are_read_without_loading(smollm2: Path) -> None:
    found = facts(smollm2)
    assert (found.architecture, found.parameters, found.context, found.tied) == ("llama", 134_515_008, 8192, True)
    assert set(found.kinds) == {"Q4_1", "Q8_0", "F32"}
    assert found.licence == "Apache-2.0"


@pytest.mark.parametrize(
    "text", ['{"a": NaN, "b": -Infinity}', '{"a": "\\ud83d"}', '\ufeff{"a": 1}', '{"a": 1, "a": 2}']
)
def test_json_that_transformers_reads_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert repr(read_json(tmp_path, "config.json")) == repr(json.loads(text.removeprefix("\ufeff")))


def test_an_adapter_in_a_models_place_says_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "small"}')
    with pytest.raises(ModelDirError, match=r"is an adapter.*--adapter .* beside small.*myna merge"):
        ModelDir.open(tmp_path)
