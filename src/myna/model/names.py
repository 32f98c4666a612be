"""Which tensors a model directory must hold, and where each goes: Hugging Face's names on disk, fused ones in memory.

A family's NAMES maps each module of the decoder to its module on disk, or to the several that are fused into it:
"layers.*.attention.qkv": ("model.layers.*.self_attn.q_proj", ...k_proj, ...v_proj). The stars are layer and expert numbers.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from myna.model.spec import Slot, Spec
from myna.records import ModelDirError

Names = Mapping[str, str | tuple[str, ...]]

_LAYER = "model.layers.*."
LLAMA: dict[str, str | tuple[str, ...]] = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "layers.*.attention_norm": _LAYER + "input_layernorm",
    "layers.*.attention.qkv": tuple(f"{_LAYER}self_attn.{x}_proj" for x in "qkv"),
    "layers.*.attention.out": _LAYER + "self_attn.o_proj",
    "layers.*.attention.q_norm": _LAYER + "self_attn.q_norm",
    "layers.*.attention.k_norm": _LAYER + "self_attn.k_norm",
    "layers.*.mlp_norm": _LAYER + "post_attention_layernorm",
    "layers.*.mlp.gate_up": (_LAYER + "mlp.gate_proj", _LAYER + "mlp.up_proj"),
    "layers.*.mlp.down": _LAYER + "mlp.down_proj",
}
# Qwen's mixtures; Mixtral has its own.
EXPERTS: dict[str, str | tuple[str, ...]] = {
    "layers.*.mlp.router": _LAYER + "mlp.gate",
    "layers.*.mlp.experts.*.gate_up": (_LAYER + "mlp.experts.*.gate_proj", _LAYER + "mlp.experts.*.up_proj"),
    "layers.*.mlp.experts.*.down": _LAYER + "mlp.experts.*.down_proj",
    "layers.*.mlp.shared.gate_up": (_LAYER + "mlp.shared_expert.gate_proj", _LAYER + "mlp.shared_expert.up_proj"),
    "layers.*.mlp.shared.down": _LAYER + "mlp.shared_expert.down_proj",
    "layers.*.mlp.shared_gate": _LAYER + "mlp.shared_expert_gate",
}
# Gemma 2 and 3 normalise on both sides of attention and MLP.
POST_NORMS: dict[str, str | tuple[str, ...]] = {
    "layers.*.post_attention_norm": _LAYER + "post_attention_layernorm",
    "layers.*.mlp_norm": _LAYER + "pre_feedforward_layernorm",
    "layers.*.post_mlp_norm": _LAYER + "post_feedforward_layernorm",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor on disk, `shape` there, and its place: rows `start` on of the decoder's tensor `path`.

    `fused` are the rows of each weight in it, more than one where the disk fuses too (Phi-3). `turned`: the disk holds
    columns by rows (GPT-2's Conv1D)."""

    name: str
    shape: tuple[int, ...]
    path: str
    start: int
    fused: tuple[int, ...]
    turned: bool = False


def parts(spec: Spec, names: Names, turned: frozenset[str] = frozenset()) -> Iterator[Part]:
    """Every tensor the model directory must hold. `turned` names the modules whose matrices are stored transposed."""
    for path, slot in spec.slots():
        module, leaf = path.rsplit(".", 1)
        pattern = re.sub(r"\b\d+\b", "*", module)
        numbers = re.findall(r"\b\d+\b", module)
        on_disk = names[pattern]
        # A name for the whole means that the disk fuses too (Phi-3).
        pieces = [(rows,) for rows in slot.rows] if isinstance(on_disk, tuple) else [slot.rows]
        start = 0
        for name, rows in zip((on_disk,) if isinstance(on_disk, str) else on_disk, pieces, strict=True):
            shape = Slot(rows, slot.columns).shape
            turn = pattern in turned and len(shape) == 2
            yield Part(f"{_fill(name, numbers)}.{leaf}", shape[::-1] if turn else shape, path, start, rows, turn)
            start += sum(rows)


def _fill(name: str, numbers: Iterable[str]) -> str:
    for number in numbers:
        name = name.replace("*", number, 1)
    return name


def check_names(expected: Iterable[Part], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """ModelDirError naming what is missing, misshaped or extra in `found`, tensor name -> shape."""
    left = dict(found)
    for part in expected:
        shape = left.pop(part.name, None)
        if shape is None:
            raise ModelDirError(
                f"{where}: tensor {part.name} is missing; config.json asks for it with shape {_by(part.shape)}."
            )
        if shape != part.shape:
            raise ModelDirError(
                f"{where}: tensor {part.name} is {_by(shape)}, but config.json makes it {_by(part.shape)}."
            )
    if left:
        some = ", ".join(sorted(left)[:3])
        raise ModelDirError(
            f"{where}: {len(left)} tensors have no place in the model that config.json describes: {some}"
            f"{', ...' if len(left) > 3 else ''}. Is config.json of another model?"
        )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
