"""Adapter folders: PEFT's layout, read without trust and written whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapter_cases import random_modules, write_folder
from myna.modeldir import AdapterDir, publish_adapter
from myna.modeldir.adapter import Written
from myna.records import ModelDirError

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
MODULES = random_modules({Q: (48, 32), DOWN: (32, 80)}, 4, 0)


def test_a_folder_is_read_with_the_scale_of_each_module(tmp_path: Path) -> None:
    found = AdapterDir.open(write_folder(tmp_path, MODULES, lora_alpha=6))
    assert set(found.modules) == {Q, DOWN}
    assert found.modules[Q].scale == 1.5
    assert found.modules[DOWN].b.shape == (32, 4)
    assert found.nbytes == 4 * 4 * (48 + 32 + 32 + 80)


def test_patterns_are_ends_of_names_and_the_first_counts(tmp_path: Path) -> None:
    modules = MODULES | random_modules({"model.layers.1.self_attn.q_proj": (48, 32)}, 2, 1)
    patterns = {
        "rank_pattern": {"layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {f"^{Q}": 10, "q_proj": 3, "proj": 99},
    }
    found = AdapterDir.open(write_folder(tmp_path, modules, lora_alpha=8, r=4, **patterns))
    scales = {name: one.scale for name, one in found.modules.items()}
    assert scales == {Q: 2.5, "model.layers.1.self_attn.q_proj": 1.5, DOWN: 2.0}


def test_rslora_divides_by_the_root(tmp_path: Path) -> None:
    assert AdapterDir.open(write_folder(tmp_path, MODULES, lora_alpha=8, use_rslora=True)).modules[Q].scale == 4.0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "has no lora_magnitude_vector"),
        ({"use_dora": 1}, "use_dora is 1"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"layer_replication": [[0, 4]]}, "layer_replication"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "the rank of .* is 0"),
        ({"r": 513}, "from 1 to 512"),
        ({"r": True}, "is True"),
        ({"r": 8}, "says rank 8"),
        ({"lora_alpha": "much"}, "alpha of .* is much"),
        ({"lora_alpha": 1e300}, "alpha"),
        ({"use_rslora": 1}, "use_rslora"),
        ({"rank_pattern": {"(a+)+$": 4}}, "regular expressions are not run"),
        ({"alpha_pattern": [1]}, "alpha_pattern should be an object"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelDirError, match=said):
        AdapterDir.open(write_folder(tmp_path, MODULES, **config))


@pytest.mark.parametrize(
    "config",
    [{"modules_to_save": []}, {"layers_to_transform": [0, 1]}, {"loftq_config": {}}, {"exclude_modules": None}],
)
def test_what_changes_nothing_is_no_reason_to_refuse(config: dict[str, Any], tmp_path: Path) -> None:
    assert AdapterDir.open(write_folder(tmp_path, MODULES, **config)).modules


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", "adapted embeddings"),
        (f"base_model.model.{Q}.lora_magnitude_vector", "a vector of F32"),
        (f"base_model.model.{Q}.lora_B.bias", "biases"),
        (f"{Q}.lora_A.weight", "is none of"),
        ("base_model.model.x.lora_A.weight", "has no lora_B"),
    ],
)
def test_a_tensor_that_has_no_meaning_here_is_refused(name: str, said: str, tmp_path: Path) -> None:
    write_folder(tmp_path, MODULES)
    file = tmp_path / "adapter_model.safetensors"
    save_file(load_file(file) | {name: np.ones((4, 32), np.float32)}, file)
    with pytest.raises(ModelDirError, match=said):
        AdapterDir.open(tmp_path)


def test_a_folder_without_its_files_says_which(tmp_path: Path) -> None:
    with pytest.raises(ModelDirError, match="is not a folder"):
        AdapterDir.open(tmp_path / "none")
    with pytest.raises(ModelDirError, match=r"has no adapter_config\.json"):
        AdapterDir.open(tmp_path)
    write_folder(tmp_path, MODULES)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelDirError, match="a pickle"):
        AdapterDir.open(tmp_path)
    (tmp_path / "adapter_model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(ModelDirError, match="outside the directory"):
        AdapterDir.open(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(ModelDirError, match="not a JSON object"):
        AdapterDir.open(tmp_path)


@pytest.mark.parametrize(("a", "b"), [((5, 32), (48, 4)), ((4, 32), (48, 5))])
def test_a_and_b_have_one_rank(a: tuple[int, int], b: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ModelDirError, match="says rank 4, so A has 4 rows and B 4 columns"):
        AdapterDir.open(write_folder(tmp_path, {Q: (np.ones(a), np.ones(b))}, r=4))


def test_integers_and_vectors_are_no_adapter(tmp_path: Path) -> None:
    write_folder(tmp_path, MODULES)
    for wrong in (np.ones((4, 32), np.int8), np.ones(32, np.float32)):
        save_file({f"base_model.model.{Q}.lora_A.weight": wrong}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(ModelDirError, match="a matrix of F32"):
            AdapterDir.open(tmp_path)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    wide = random_modules({"model.layers.1.self_attn.q_proj": (48, 32)}, 7, 2)
    modules = {
        name: Written(*pair, alpha)
        for (name, pair), alpha in zip((MODULES | wide).items(), (8.0, 2.0, 8.0), strict=True)
    }
    found = AdapterDir.open(publish_adapter(tmp_path / "made", modules, {"command": "test"}, base="tiny"))
    assert {name: one.scale for name, one in found.modules.items()} == {
        name: one.alpha / len(one.a) for name, one in modules.items()
    }
    assert json.loads((tmp_path / "made" / "lineage.json").read_text())["command"] == "test"
    assert found.config["base_model_name_or_path"] == "tiny"
    with pytest.raises(ModelDirError, match="exists"):
        publish_adapter(tmp_path / "made", modules, {})
