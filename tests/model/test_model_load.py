"""What is wrong with a model directory is said before a weight is read, by the tensor's or the field's name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from family_cases import oracle
from myna.kernels import library
from myna.model import Cache, Causal, describe, hf_state, load_model
from myna.model.config import Config
from myna.model.families import read_spec, supported
from myna.modeldir import ModelDir, Stored, Weights
from myna.records import ModelDirError

CONFIG = {
    "model_type": "qwen2", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def stored(name: str, tensor: torch.Tensor, kind: str = "F32") -> Stored:
    raw = tensor.contiguous().view(torch.uint8).numpy()
    return Stored(name, tuple(tensor.shape), kind, raw)


def directory(config: dict = CONFIG, **changes: torch.Tensor | None) -> ModelDir:
    """A model directory in memory. `changes` replaces, adds, or with None removes tensors; dots are double underscores."""
    from myna.model import Decoder

    torch.manual_seed(0)
    decoder = Decoder(read_spec(Config(config)))
    tensors = hf_state(decoder) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    found = {name: stored(name, tensor) for name, tensor in tensors.items() if tensor is not None}
    return ModelDir(Path("somewhere"), config, {}, {}, None, Weights(found))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__layers__1__self_attn__k_proj__weight": None}, "layers.1.self_attn.k_proj.weight is missing.*16x32"),
        ({"model__layers__0__self_attn__q_proj__bias": None}, "layers.0.self_attn.q_proj.bias is missing"),
        ({"model__norm__weight": torch.ones(31)}, "model.norm.weight is 31, but config.json makes it 32"),
        ({"model__layers__0__mlp__down_proj__weight": torch.ones(40, 32)}, "down_proj.weight is 40x32.*32x40"),
        ({"model__layers__2__mlp__down_proj__weight": torch.ones(32, 40)}, "layers.2.mlp.down_proj.weight"),
        ({"model__embed_tokens__weight": torch.ones(50, 32, 1)}, "embed_tokens.weight is 50x32x1"),
    ],
)
def test_a_wrong_tensor_is_named(changes: dict, words: str) -> None:
    with pytest.raises(ModelDirError, match=f"somewhere.*{words}"):
        describe(directory(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen2_5"}, "'qwen2_5' is not supported. Closest: qwen2. Supported: .*gemma2.*llama"),
        ({"model_type": "../llama"}, "not supported"),
        ({"model_type": "_types"}, "not supported"),
        ({"model_type": None}, "model_type is missing|model_type is 'None'"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers.*1024"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"hidden_act": "snake"}, "activation 'snake' is not supported"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_scaling": {"rope_type": "mrope"}}, "rope type 'mrope' is not supported; these are: default, linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor is missing"),
        ({"rope_theta": 1.0, "rope_scaling": {"type": "yarn", "factor": 4.0}}, "theta 1, length 32 has no yarn"),
        ({"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope of 2 channels.* has no dynamic"),
        ({"rope_scaling": [1]}, "rope_scaling.*must be an object"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
            "short_factor has 1 numbers",
        ),
        ({"partial_rotary_factor": 0.1}, "rope turns 0 of 8"),
        ({"model_type": "gpt2", "n_embd": 4, "n_head": 8}, "n_head is '8'; it must divide the width, 4"),
        ({"use_sliding_window": True, "layer_types": ["full_attention"]}, "layer_types names 1 layers"),
        ({"use_sliding_window": True, "layer_types": ["linear_attention"] * 2}, "layer_types"),
    ],
)
def test_a_wrong_field_is_named(changes: dict, words: str) -> None:
    config = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    with pytest.raises(ModelDirError, match=words):
        load_model(replace(directory(), config=config))


def test_nothing_is_read_before_names_and_shapes_agree() -> None:
    """A tensor of a kind that cannot be decoded goes unnoticed until the missing one is there."""
    base = directory(lm_head__weight=None)
    odd = Stored("model.norm.weight", (32,), "NO_SUCH_KIND", np.zeros(1, np.uint8))
    with pytest.raises(ModelDirError, match=r"lm_head\.weight is missing"):
        load_model(replace(base, weights=Weights(dict(base.weights) | {odd.name: odd})))


def test_a_broken_family_file_is_not_called_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def broken(name: str) -> None:
        raise ImportError("no module named spam")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ImportError, match="spam"):
        read_spec(Config(CONFIG))


def test_every_family_file_says_what_a_family_must() -> None:
    from myna.model.families import family

    assert all(callable(family(name).spec) and family(name).NAMES for name in supported())


def test_max_len_beyond_the_model_is_refused_with_the_numbers() -> None:
    with pytest.raises(ModelDirError, match="max_len is 33; this model reaches from 1 to 32"):
        load_model(directory(), max_len=33)
    assert load_model(directory(), max_len=7).max_len == 7


def test_a_stretched_rope_reaches_as_far_as_its_factor() -> None:
    config = CONFIG | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}
    assert load_model(directory(config), max_len=128).max_len == 128


@pytest.mark.parametrize(
    ("kind", "expected"), [("F32", "float32"), ("F16", "bfloat16"), ("BF16", "bfloat16"), ("Q8_0", "mixed")]
)
def test_auto_precision_follows_the_weights(kind: str, expected: str) -> None:
    from myna.kernels import library
    from myna.model.load import pick_precision

    if expected == "mixed" and library() is None:
        expected = "int8"  # torch's own kernels know no 4 bits

    tensors = {"a": Stored("a", (2, 32), kind, np.zeros((2, 1), np.uint8)), "b": stored("b", torch.ones(3))}
    assert pick_precision(tensors, "auto") == expected


def test_four_bits_without_native_kernels_are_refused_and_auto_takes_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    from myna.model.load import pick_precision

    monkeypatch.setattr("myna.model.load.library", lambda: None)
    tensors = {"a": Stored("a", (2, 32), "Q8_0", np.zeros((2, 1), np.uint8))}
    assert pick_precision(tensors, "auto") == "int8"
    for precision in ("int4", "mixed"):
        with pytest.raises(ModelDirError, match=f"{precision} needs the native kernels"):
            pick_precision(tensors, precision)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ModelDirError, match="'int3' is not known; these are: auto, float32, bfloat16, int8"):
        load_model(directory(), "int3")


def test_torch_has_as_many_threads_after_loading_as_before() -> None:
    before, bad = torch.get_num_threads(), torch.full((32, 40), torch.nan)
    torch.set_num_threads(before + 1)
    try:
        load_model(directory())
        assert torch.get_num_threads() == before + 1
        with pytest.raises(ModelDirError, match="not a number"):
            load_model(directory(model__layers__0__mlp__down_proj__weight=bad), "int8")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
@pytest.mark.parametrize("same", [True, False])
def test_a_tied_model_that_repeats_its_head_keeps_one_copy_unless_they_differ(same: bool) -> None:
    config = CONFIG | {"tie_word_embeddings": True}
    base = directory(config)
    embed = torch.from_numpy(base.weights["model.embed_tokens.weight"].raw.view(np.float32).copy())
    head = stored("lm_head.weight", embed if same else embed * 2)
    decoder = load_model(replace(base, weights=Weights(dict(base.weights) | {head.name: head})))
    assert decoder.spec.tied is same
    hidden = torch.randn(1, 32)
    torch.testing.assert_close(decoder.logits(hidden), hidden @ (embed.T if same else 2 * embed.T))


def test_llama_2_files_may_carry_rope_frequencies() -> None:
    config = CONFIG | {"model_type": "llama"}
    with_them = directory(config, **{"model__layers__0__self_attn__rotary_emb__inv_freq": torch.ones(4)})
    assert describe(with_them)[0] == describe(directory(config))[0]


def test_gpt2_files_without_a_prefix_are_read() -> None:
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 20}
    base = directory(config)
    short = {name.removeprefix("transformer."): tensor for name, tensor in base.weights.items()}
    short["h.0.attn.bias"] = stored("h.0.attn.bias", torch.ones(1, 1, 8, 8))
    old, new = load_model(base), load_model(replace(base, weights=Weights(short)))
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_gemma3_with_images_gives_its_text_part(prefix: str) -> None:
    """In the spelling of transformers 4 and 5; the image part is left on disk."""
    text = {k: v for k, v in CONFIG.items() if k != "model_type"} | {"head_dim": 8, "sliding_window": 4}
    base = directory(text | {"model_type": "gemma3_text"})
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in base.weights.items()}
    renamed["vision_tower.x.weight"] = stored("x", torch.ones(3))
    images = replace(base, config={"model_type": "gemma3", "text_config": text}, weights=Weights(renamed))
    old, new = load_model(base), load_model(images)
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


def test_an_int8_decoder_is_not_published_as_the_model() -> None:
    with pytest.raises(ModelDirError, match="int8"):
        hf_state(load_model(directory(), "int8"))


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_cached_is_whole_in_every_precision(precision: str) -> None:
    decoder = load_model(directory(), precision)
    ids = torch.randint(0, 50, (2, 20))
    whole = decoder(ids, torch.arange(20).expand(2, -1), Causal())
    cache = Cache(decoder.spec, 2, 20)
    steps = [decoder(ids[:, [t]], torch.full((2, 1), t), cache) for t in range(20)]
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}.get(precision, 0.05)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=tolerance, atol=tolerance)


@torch.inference_mode()
def test_rows_of_different_lengths_share_a_cache() -> None:
    """Row 0 is 3 tokens ahead; each must answer as it would alone."""
    decoder = load_model(directory(), "float32")
    ids, cache = torch.randint(0, 50, (2, 9)), Cache(decoder.spec, 2, 16)
    decoder(ids[:, :6], torch.arange(6).expand(2, -1), cache)
    step = decoder(ids[:, [6]], torch.tensor([[6], [3]]), cache)
    for row, before in enumerate((6, 3)):
        alone = torch.cat((ids[row, :before], ids[row, 6:7]))[None]
        whole = decoder(alone, torch.arange(before + 1)[None], Causal())
        torch.testing.assert_close(step[row, 0], whole[0, -1], rtol=1e-5, atol=1e-5)


def test_config_json_round_trips_through_a_real_directory(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in hf_state(load_model(directory())).items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    again = load_model(ModelDir.open(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(load_model(directory()).parameters(), again.parameters(), strict=True))


@pytest.mark.skipif(library() is None, reason="no native kernels here: nothing is packed")
@pytest.mark.parametrize("case", ["phi3", "gpt2"])
def test_weights_that_the_disk_fuses_are_the_same_in_chunks_of_any_size(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sizes are no multiples of a unit's rows, so each is laid out by itself and begins a chunk."""
    oracle(case, tmp_path)
    whole = load_model(ModelDir.open(tmp_path), "int8").state_dict()
    monkeypatch.setattr("myna.model.read.CHUNK", 1)
    shutil.rmtree(tmp_path / "packed")  # what the first start kept
    cut = load_model(ModelDir.open(tmp_path), "int8").state_dict()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name
