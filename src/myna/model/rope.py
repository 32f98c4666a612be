"""Rotary positions: frequencies of each kind, and the rotation.

Kinds: default (Su et al. 2021), linear (kaiokendev 2023), dynamic (NTK-aware, bloc97 and emozilla 2023), llama3 (Llama 3.1),
yarn (Peng et al. 2023, arXiv 2309.00071), longrope (Ding et al. 2024, arXiv 2402.13753).

dynamic and longrope depend on a length. Ours is the decoder's `max_len`, chosen once when it is built, so a token's key does
not depend on how the prompt was cut into steps; vLLM chooses once too. transformers recomputes from the longest position
seen so far: the two agree where that equals `max_len`.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from myna.model.config import Config
from myna.model.spec import Rope
from myna.records import ModelDirError

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


def read_rope(config: Config, head_dim: int, theta: float = 10_000.0, layer_type: str | None = None) -> Rope:
    """The rope of config.json: transformers 4 spells it rope_theta and rope_scaling, transformers 5 rope_parameters,
    nested by layer type where layers differ. `theta` is the family's default."""
    stated = config.integer("max_position_embeddings", most="length")
    fields = config.below("rope_parameters" if config.has("rope_parameters") else "rope_scaling")
    if layer_type and layer_type in fields.fields:
        fields = fields.below(layer_type)
    kind = fields.text("rope_type", fields.text("type", "default"))
    if kind not in KINDS:
        raise ModelDirError(f"{fields.where}: rope type {kind!r} is not supported; these are: {', '.join(KINDS)}.")
    partial = fields.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    dim = int(head_dim * min(partial, 1.0))
    if dim < 2 or dim % 2:
        raise ModelDirError(f"{config.where}: rope turns {dim} of {head_dim} channels; it must be an even number.")
    theta = fields.number("rope_theta", config.number("rope_theta", theta))
    if kind == "default":
        return Rope(dim=dim, theta=theta, stated=stated)
    # Phi-3 keeps the trained length beside the rope fields, and it wins there.
    trained = fields.integer("original_max_position_embeddings", stated, most="length")
    trained = config.integer("original_max_position_embeddings", trained, most="length")
    if theta <= 1 or dim < 4 or trained < 2:  # yarn and longrope divide by their logarithms, dynamic by dim - 2
        raise ModelDirError(
            f"{fields.where}: a rope of {dim} channels, theta {theta:g}, length {trained} has no {kind}."
        )
    rope = Rope(dim=dim, theta=theta, kind=kind, stated=stated, trained=trained)
    return _READ[kind](fields, rope)


def _scaled(fields: Config, rope: Rope) -> Rope:
    return replace(rope, factor=fields.number("factor"))


def _llama3(fields: Config, rope: Rope) -> Rope:
    low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
    if low >= high:
        raise ModelDirError(f"{fields.where}: low_freq_factor {low} must be below high_freq_factor {high}.")
    return replace(rope, factor=fields.number("factor"), low=low, high=high)


def _yarn(fields: Config, rope: Rope) -> Rope:
    return replace(
        rope,
        factor=fields.number("factor", rope.stated / rope.trained),
        attention_factor=fields.maybe("attention_factor"),
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        mscale=fields.maybe("mscale") or 0.0,
        mscale_all_dim=fields.maybe("mscale_all_dim") or 0.0,
        truncate=fields.flag("truncate", True),
    )


def _longrope(fields: Config, rope: Rope) -> Rope:
    return replace(
        rope,
        factor=fields.number("factor", rope.stated / rope.trained),
        attention_factor=fields.maybe("attention_factor"),
        short=fields.numbers("short_factor", rope.dim // 2),
        long=fields.numbers("long_factor", rope.dim // 2),
    )


_READ = {"linear": _scaled, "dynamic": _scaled, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}


def longest(rope: Rope) -> int:
    """The longest context the rope is made for: what config.json states, or what its stretching reaches."""
    return max(rope.stated, int(rope.factor * (rope.stated if rope.kind == "dynamic" else rope.trained)))


def frequencies(rope: Rope, max_len: int) -> tuple[Tensor, float]:
    """Radians per position of each rotated pair, float32 [dim / 2], and what cos and sin are multiplied by."""
    powers = torch.arange(0, rope.dim, 2, dtype=torch.int64, device="cpu").float() / rope.dim
    plain = 1.0 / (rope.theta**powers)
    match rope.kind:
        case "linear":
            return plain / rope.factor, 1.0
        case "dynamic":
            stretch = rope.factor * max(max_len, rope.stated) / rope.stated - (rope.factor - 1)
            return 1.0 / ((rope.theta * stretch ** (rope.dim / (rope.dim - 2))) ** powers), 1.0
        case "llama3":
            return _llama3_frequencies(rope, plain), 1.0
        case "yarn":
            return _yarn_frequencies(rope, plain), _yarn_magnitude(rope)
        case "longrope":
            factors = torch.tensor(rope.long if max_len > rope.trained else rope.short, device="cpu")
            return 1.0 / (factors * rope.theta**powers), _longrope_magnitude(rope)
    return plain, 1.0


def _llama3_frequencies(rope: Rope, plain: Tensor) -> Tensor:
    """Slow pairs divided by the factor, fast ones left, those between blended."""
    turns = rope.trained * plain / (2 * math.pi)
    blend = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn_frequencies(rope: Rope, plain: Tensor) -> Tensor:
    """Pairs that turn often in the trained length stay, those that turn less than once are stretched (NTK by parts)."""

    def pair_turning(times: float) -> float:
        return rope.dim * math.log(rope.trained / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    width = (high - low) or 0.001
    stretched = ((torch.arange(rope.dim // 2, device="cpu").float() - low) / width).clamp(0, 1)
    return plain / rope.factor * stretched + plain * (1 - stretched)


def _yarn_magnitude(rope: Rope) -> float:
    def magnitude(mscale: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * mscale * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    both = bool(rope.mscale and rope.mscale_all_dim)
    return magnitude(rope.mscale) / magnitude(rope.mscale_all_dim) if both else magnitude(1.0)


def _longrope_magnitude(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 1.0 if rope.factor <= 1 else math.sqrt(1 + math.log(rope.factor) / math.log(rope.trained))


class Rotary(nn.Module):
    """cos and sin of every position below `max_len`, float32 [max_len, dim / 2], computed once."""

    cos: Tensor
    sin: Tensor

    def __init__(self, rope: Rope, max_len: int):
        super().__init__()
        turns, magnitude = frequencies(rope, max_len)
        angles = torch.arange(max_len, device="cpu").float()[:, None] * turns
        self.register_buffer("cos", angles.cos() * magnitude, persistent=False)
        self.register_buffer("sin", angles.sin() * magnitude, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[...] -> cos and sin [..., 1, dim / 2], ready to broadcast over heads."""
        return self.cos[positions].unsqueeze(-2), self.sin[positions].unsqueeze(-2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i with channel i + dim / 2 of x [..., H, D] (the layout of transformers); the rest passes through."""
    half = cos.shape[-1]
    # split, not slices: on the way back each slice would be a tensor of zeros with a third of it filled in.
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)
