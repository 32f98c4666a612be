"""Position scaling, the attention scale and the other values config.json must get right from sparse metadata."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from modeldir_tiny import write_vocabulary

from myna.modeldir.gguf import GGUF
from myna.modeldir.gguf_config import config_from_gguf
from myna.records import ModelDirError

WIDTH, HEADS = 128, 2  # 64 rotary dimensions, as in Llama 3.2 1B


def config_of(path: Path, arch: str, tensors: dict[str, np.ndarray] | None = None, **keys: Any) -> dict[str, Any]:
    """config.json of a file that holds an embedding and the given tensors and metadata."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in {"block_count": 2, "context_length": 131072, "embedding_length": WIDTH, **keys}.items():
        key = f"{arch}.{key.replace('__', '.')}"
        (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value) if isinstance(
            value, int
        ) else writer.add_float32(key, value) if isinstance(value, float) else writer.add_string(key, value)
    writer.add_head_count(HEADS)
    writer.add_feed_forward_length(96)
    writer.add_layer_norm_rms_eps(1e-6)
    write_vocabulary(writer)
    for name, array in {"token_embd.weight": np.zeros((96, WIDTH), np.float32), **(tensors or {})}.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config_from_gguf(GGUF(path))


@pytest.mark.parametrize(("arch", "keys", "says"), [
    ("gemma2", {"block_count": 2**31}, "from 0 to"),
    ("gemma2", {"block_count": 100_000}, "at most 1024"),
    ("gemma2", {"attention__scale": 0.0}, "above 0"),
    ("gemma2", {"attention__scale": float("nan")}, "should be a number"),
    ("llama", {"rope__freq_base": -1.0}, "above 0"),
    ("llama", {"rope__freq_base": float("inf")}, "should be a number"),
    ("llama", {"context_length": -5}, "should be from 0"),
])  # fmt: skip
def test_absurd_numbers_are_refused_before_they_are_computed_with(
    arch: str, keys: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelDirError, match=says):
        config_of(tmp_path / "x.gguf", arch, attention__sliding_window=16, **keys)


def llama3_factors(factor: float, original: int = 8192) -> np.ndarray:
    """rope_freqs.weight as llama.cpp's converter computes it, from transformers' own frequencies."""
    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": original, "rope_theta": 500000.0}
    size = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "max_position_embeddings": 131072}
    config = transformers.LlamaConfig(**size, rope_parameters=scaling)
    plain = transformers.LlamaConfig(**size, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding
    with torch.no_grad():
        return (rotary(plain).inv_freq / rotary(config).inv_freq).numpy().astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_found_again_from_its_factors(factor: float, tmp_path: Path) -> None:
    tensors = {"rope_freqs.weight": llama3_factors(factor)}
    scaling = config_of(tmp_path / "m.gguf", "llama", tensors, rope__freq_base=500000.0)["rope_scaling"]
    assert scaling == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_factors_of_no_known_rule_are_refused_not_ignored(tmp_path: Path) -> None:
    tensors = {"rope_freqs.weight": llama3_factors(8.0, original=2048)}
    with pytest.raises(ModelDirError, match="not Llama 3's"):
        config_of(tmp_path / "m.gguf", "llama", tensors, rope__freq_base=500000.0)


def test_yarn_and_linear_scaling_come_from_metadata(tmp_path: Path) -> None:
    yarn = config_of(
        tmp_path / "y.gguf", "qwen2", rope__scaling__type="yarn", rope__scaling__factor=4.0,
        rope__scaling__original_context_length=32768,
    )  # fmt: skip
    linear = config_of(tmp_path / "l.gguf", "gemma3", rope__scaling__type="linear", rope__scaling__factor=8.0,
                       attention__sliding_window=1024)  # fmt: skip
    assert yarn["rope_scaling"] == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert linear["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_an_unknown_scaling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelDirError, match="'spiral' is not supported"):
        config_of(tmp_path / "m.gguf", "qwen2", rope__scaling__type="spiral")


def test_phi3_long_factors_become_longrope(tmp_path: Path) -> None:
    long, short = np.linspace(1, 50, 32, dtype=np.float32), np.ones(32, np.float32)
    tensors = {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    config = config_of(tmp_path / "m.gguf", "phi3", tensors, rope__scaling__original_context_length=4096)
    assert config["rope_scaling"] == {"rope_type": "longrope", "long_factor": long.tolist(), "short_factor": [1.0] * 32}
    assert config["original_max_position_embeddings"] == 4096


def test_a_window_makes_a_llama_file_mistral(tmp_path: Path) -> None:
    config = config_of(tmp_path / "m.gguf", "llama", attention__sliding_window=4096)
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 4096)


@pytest.mark.parametrize(("layers", "scalar"), [(46, WIDTH // HEADS), (26, 256)])
def test_only_the_27b_gemma2_scales_by_width_per_head(layers: int, scalar: int, tmp_path: Path) -> None:
    keys = {"attention__key_length": 256, "attention__sliding_window": 4096, "block_count": layers}
    assert config_of(tmp_path / "m.gguf", "gemma2", **keys)["query_pre_attn_scalar"] == scalar


def test_epsilon_is_written_as_it_was_meant(tmp_path: Path) -> None:
    assert config_of(tmp_path / "m.gguf", "qwen2")["rms_norm_eps"] == 1e-6


def test_one_part_of_a_split_model_says_how_to_join_it(tmp_path: Path) -> None:
    config_of(tmp_path / "m.gguf", "qwen2")
    file = GGUF(tmp_path / "m.gguf")
    file.metadata["split.count"] = 3
    with pytest.raises(ModelDirError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        config_from_gguf(file)
