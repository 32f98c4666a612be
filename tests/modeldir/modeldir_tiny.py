"""Tiny models with random weights, as Hugging Face directories and as GGUF files written by the gguf package.

The GGUF side follows llama.cpp's converter (names from gguf's own tensor map), so that reading it back with our code is
compared with an independent writer.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from myna.modeldir.gguf_tokenizer import CONTROL, NORMAL

VOCAB, WIDTH, LAYERS, HEADS, KV, HIDDEN = 96, 64, 2, 4, 2, 96

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": WIDTH // HEADS,
    "max_position_embeddings": 128,
}
_MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA: dict[str, Any] = {"sliding_window": 16, "query_pre_attn_scalar": WIDTH // HEADS, "head_dim": WIDTH // HEADS}

# GGUF architecture -> (transformers config class, what differs from _COMMON)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2moe": ("Qwen2MoeConfig", {**_MOE, "shared_expert_intermediate_size": 48, "decoder_sparse_step": 1}),
    "qwen3": ("Qwen3Config", {"tie_word_embeddings": True}),
    "qwen3moe": ("Qwen3MoeConfig", {**_MOE, "decoder_sparse_step": 1, "norm_topk_prob": True}),
    "gemma2": ("Gemma2Config", _GEMMA),
    "gemma3": ("Gemma3TextConfig", _GEMMA),
    "phi3": ("Phi3Config", {"pad_token_id": 0, "original_max_position_embeddings": 128}),
    "gpt2": ("GPT2Config", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 128}),
}


def tiny_model(arch: str, seed: int = 0) -> Any:
    """A transformers model with random weights; biases and norms are random too, or a swap of two would not show."""
    name, more = ARCHITECTURES[arch]
    common = {"vocab_size": VOCAB} if arch == "gpt2" else _COMMON
    config = getattr(transformers, name)(**{**common, **more, "bos_token_id": 1, "eos_token_id": 2})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def hf_tensors(model: Any, directory: Path) -> dict[str, np.ndarray]:
    """The model's tensors as transformers writes them to disk (experts apart); also makes the directory."""
    from safetensors.numpy import load_file

    model.save_pretrained(directory)
    return load_file(directory / "model.safetensors")


def write_gguf(path: Path, arch: str, model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Write the model as llama.cpp's converter would, in F32, with a 96-token byte-level vocabulary."""
    real = "llama" if arch == "mixtral" else arch
    writer = gguf.GGUFWriter(path, real)
    _write_keys(writer, arch, model.config)
    write_vocabulary(writer)
    names = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == real), LAYERS)
    for name, array in _stacked(tensors).items():
        ours = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert ours is not None, f"gguf has no name for {name}"
        writer.add_tensor(ours, np.ascontiguousarray(_as_llama_cpp(arch, name, array)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_vocabulary(writer: gguf.GGUFWriter, size: int = VOCAB, pre: str = "gpt-2") -> None:
    """`size` tokens, mostly letters; 1 and 2 are control."""
    tokens = ["<unk>", "<|begin|>", "<|im_end|>"] + [chr(33 + i) for i in range(size - 4)] + ["AB"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([NORMAL, CONTROL, CONTROL] + [NORMAL] * (size - 3))
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)


def _write_keys(writer: gguf.GGUFWriter, arch: str, config: Any) -> None:
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_vocab_size(VOCAB)
    if arch == "gpt2":
        writer.add_feed_forward_length(4 * WIDTH)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(1e6 if arch in ("gemma3", "mixtral") else 10000.0)  # transformers' defaults
    if arch.startswith("gemma"):
        writer.add_sliding_window(16)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if arch in ("mixtral", "qwen2moe", "qwen3moe"):
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
    if arch in ("qwen2moe", "qwen3moe"):
        writer.add_expert_feed_forward_length(32)
    if arch == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(48)


def _stacked(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Experts of one layer as one tensor, as GGUF keeps them; the name loses its expert number."""
    found: dict[str, Any] = {}
    for name, array in tensors.items():
        if ".experts." in name:
            head, _, tail = name.partition(".experts.")
            number, _, part = tail.partition(".")
            found.setdefault(f"{head}.experts.{part}", {})[int(number)] = array
        else:
            found[name] = array
    stack = lambda value: np.stack([value[i] for i in sorted(value)]) if isinstance(value, dict) else value  # noqa: E731
    return {name: stack(value) for name, value in found.items()}


def _as_llama_cpp(arch: str, name: str, array: np.ndarray) -> np.ndarray:
    if arch in ("llama", "mixtral") and ("q_proj" in name or "k_proj" in name):
        heads = HEADS if "q_proj" in name else KV
        return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        return array + 1
    if arch == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return array.T
    if name.endswith("shared_expert_gate.weight"):
        return array.reshape(-1)
    return array
