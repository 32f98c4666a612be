"""GGUF tensors under their Hugging Face names, in Hugging Face's row order.

Renames are those of llama.cpp's convert_hf_to_gguf.py, read backwards. Rows are whole numbers of blocks, so moving
rows and cutting stacks of experts is exact on quantized tensors too.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from myna.modeldir.gguf import GGUF, Span
from myna.modeldir.gguf_config import Config
from myna.modeldir.stored import Adjust, Stored, as_rows
from myna.records import ModelDirError

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LLAMA = _ATTENTION | _MLP | {"ffn_norm": "post_attention_layernorm"}
_QWEN_MOE = _LLAMA | {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_GEMMA = _LLAMA | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

# model_type -> names inside a layer; "{}" stands for the expert.
_LAYER: dict[str, dict[str, str]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA
    | {
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    },
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen2_moe": _QWEN_MOE,
    "qwen3_moe": _QWEN_MOE,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "phi3": _LLAMA | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "gpt2": {
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
}
_GPT2_TOP = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
# Read into config.json's rope_scaling; llama.cpp recomputes nothing from them, and neither do we.
_IN_CONFIG = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
_PERMUTED = {"llama", "mistral", "mixtral"}  # model types of llama.cpp's "llama"


def stored_from_gguf(gguf: GGUF, config: Config) -> Iterator[Stored]:
    """The file's tensors under Hugging Face names. ModelDirError for one we have no name for."""
    if str(config.get("model_type")) not in _LAYER:
        known = ", ".join(_LAYER)
        raise ModelDirError(
            f"{gguf.path}: config.json beside it says model_type {str(config.get('model_type'))[:60]!r}; these are read "
            f"from GGUF: {known}. Pull the file again."
        )
    for span in gguf.tensors.values():
        if span.name in _IN_CONFIG:
            continue
        name = _hf_name(span.name, config["model_type"])
        if name is None:
            raise ModelDirError(f"{gguf.path}: tensor {span.name!r} has no place in a {config['model_type']} model.")
        yield from _experts(gguf, span, name) if "{}" in name else [_plain(gguf, span, name, config)]


def _hf_name(name: str, model_type: str) -> str | None:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    stem, _, tail = name.rpartition(".")
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
        layer, part = found.groups()
        inner = _LAYER[model_type].get(part)
        layers = "transformer.h" if model_type == "gpt2" else "model.layers"
        return inner and f"{layers}.{layer}.{inner}.{tail}"
    top = (_GPT2_TOP if model_type == "gpt2" else _TOP).get(stem)
    return top and f"{top}.{tail}"


def _plain(gguf: GGUF, span: Span, name: str, config: Config) -> Stored:
    shape, order = span.shape, None
    if name.endswith("mlp.shared_expert_gate.weight") and len(shape) == 1:
        shape = (1, *shape)  # a linear with one output, which llama.cpp flattens
    raw = as_rows(gguf.bytes_of(span), shape)
    if (model_type := config["model_type"]) in _PERMUTED and re.search(r"\.attn_[qk]\.", span.name):
        heads = config.get("num_attention_heads" if ".attn_q." in span.name else "num_key_value_heads")
        order = _unpermuted(gguf, span, heads)
    if adjust := _adjust(name, model_type, shape):
        shape = tuple(reversed(shape)) if adjust == "transpose" else shape
    return Stored(name, shape, span.kind, raw, adjust, order)


def _unpermuted(gguf: GGUF, span: Span, heads: Any) -> np.ndarray:
    """The order in which to take llama.cpp's rows.

    It interleaves the two halves of each head's rotary pairs, Hugging Face keeps them apart:
    gguf[head, pair, half] is hf[head, half, pair].
    """
    rows = span.shape[0]
    if not isinstance(heads, int) or heads < 1 or rows % (2 * heads):
        raise ModelDirError(f"{gguf.path}: {span.name} has {rows} rows, which {str(heads)[:60]} heads cannot share.")
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _adjust(name: str, model_type: str, shape: tuple[int, ...]) -> Adjust | None:
    if model_type.startswith("gemma") and name.endswith("norm.weight"):
        return "minus_one"
    # GPT-2's Conv1D keeps [in, out]; llama.cpp turns it round.
    if model_type == "gpt2" and len(shape) == 2 and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name):
        return "transpose"
    return None


def _experts(gguf: GGUF, span: Span, name: str) -> Iterator[Stored]:
    """A stack [experts, out, in] as one tensor per expert."""
    if len(span.shape) != 3:
        raise ModelDirError(
            f"{gguf.path}: {span.name} should stack experts in 3 dimensions; its shape is {span.shape}."
        )
    experts, *shape = span.shape
    rows = gguf.bytes_of(span).reshape(experts, shape[0], -1)
    for expert in range(experts):
        yield Stored(name.format(expert), tuple(shape), span.kind, rows[expert])
