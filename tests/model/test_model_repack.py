"""Blocks of a GGUF file are packed number for number, and each tensor gets the format it should."""

from itertools import cycle, islice, pairwise
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from myna.kernels import FORMATS, library
from myna.kernels.formats import pack, unpack
from myna.model import load_model
from myna.model.blocks import decode
from myna.model.config import Config
from myna.model.families import read_spec
from myna.model.linear import PackedLinear
from myna.model.load import parts_of
from myna.model.names import Part
from myna.model.repack import EXACT, pick_formats, regroup
from myna.modeldir import ModelDir, Stored, Weights
from myna.records import ModelDirError

needs_native = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing is packed")


def random_blocks(kind: str, rows: int, columns: int) -> np.ndarray:
    """Bytes of a type, all of them possible but for scales that are not finite: those have an exponent of ones."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.random.default_rng(rows).integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    scales = {"Q4_1": (1, 3), "Q4_K": (1, 3), "Q6_K": (209,)}.get(kind, (1,))
    for high in scales:
        raw[..., high] &= 0b10111111
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("rows", [1, 32, 75])
def test_packed_blocks_are_the_decoded_ones(kind: str, rows: int) -> None:
    raw = random_blocks(kind, rows, 512)
    packed = pack(regroup(kind, raw), EXACT[kind])
    assert torch.equal(unpack(packed, rows, 512, EXACT[kind]), decode(kind, raw.copy()))


@pytest.mark.parametrize("kind", EXACT)
def test_a_scale_that_is_no_number_is_refused(kind: str) -> None:
    raw = random_blocks(kind, 4, 256)
    place = 208 if kind == "Q6_K" else 0
    raw[2, place : place + 2] = 0, 0x7C
    with pytest.raises(ModelDirError, match="damaged"):
        regroup(kind, raw)


def test_each_precision_gives_each_tensor_its_format() -> None:
    qkv = [("q", 64, "Q4_K"), ("k", 64, "Q4_K"), ("v", 40, "Q6_K")]
    parts = [Part(name, (rows, 256), "layers.0.attention.qkv.weight", 0, (rows,)) for name, rows, _ in qkv]
    parts += [Part("embed", (90, 256), "embed.weight", 0, (90,)), Part("norm", (256,), "norm.weight", 0, (256,))]
    kinds = {name: kind for name, _, kind in qkv} | {"embed": "Q6_K", "norm": "F32"}
    stored = {name: Stored(name, (1, 1), kind, np.zeros((1, 1), np.uint8)) for name, kind in kinds.items()}
    q8, q6k, q4s64, q4k = (FORMATS[name] for name in ("q8", "q6k", "q4s64", "q4k"))

    def chosen(precision: str) -> list:
        return list(pick_formats(parts, stored, precision).values())

    assert chosen("mixed") == [((128, q4k), (40, q6k)), ((90, q6k),)]
    assert chosen("int4") == [((168, q4k),), ((90, q6k),)]
    assert chosen("q4s64") == [((168, q4s64),), ((90, q6k),)]
    assert chosen("int8") == [((168, q8),), ((90, q8),)]


LLAMA = {
    "model_type": "llama", "vocab_size": 40, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 40}


@needs_native
@pytest.mark.parametrize("first", range(len(EXACT)))
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2, whose matrices GGUF turns round"])
def test_a_quantized_file_is_held_number_for_number(config: dict, first: int) -> None:
    """Every tensor of another type than the one before it, so that some of those that lie in one weight differ."""
    kinds, stored = islice(cycle(EXACT), first, None), {}
    parts = [*parts_of(read_spec(Config(config)))]
    for part in parts:
        if len(part.shape) == 1:
            raw, kind = np.zeros(4 * part.shape[0], np.uint8), "F32"
        else:
            kind = next(kinds)
            raw = random_blocks(kind, *(reversed(part.shape) if part.turned else part.shape))
        stored[part.name] = Stored(part.name, part.shape, kind, raw, "transpose" if part.turned else None)
    decoder = load_model(ModelDir(Path("somewhere"), config, {}, {}, None, Weights(stored)), "mixed")
    for part in parts:
        module = decoder.get_submodule(part.path.removesuffix(".weight").removesuffix(".bias"))
        if isinstance(module, PackedLinear) and len(part.shape) > 1:
            numbers = torch.cat([unpack(packed, *shape, format) for packed, shape, format in module.parts()])
            exact = decode(stored[part.name].kind, stored[part.name].raw)
            assert torch.equal(numbers[part.start :][: len(exact)], exact), part.name


@needs_native
def test_filling_in_chunks_is_filling_whole() -> None:
    torch.manual_seed(0)
    weight, pieces = torch.randn(170, 64), ((70, FORMATS["q8"]), (100, FORMATS["q4s"]))
    whole, chunked = PackedLinear(64, 170), PackedLinear(64, 170)
    for layer, cuts in ((whole, (0, 70, 170)), (chunked, (0, 32, 64, 70, 134, 170))):
        layer.lay_out(pieces)
        for start, stop in pairwise(cuts):
            layer.fill(start, weight[start:stop].clone())
    assert torch.equal(whole.packed, chunked.packed)
    close = torch.cat([unpack(*piece[:1], *piece[1], piece[2]) for piece in whole.parts()])
    torch.testing.assert_close(close, weight, rtol=0.2, atol=0.3)


@needs_native
def test_a_weight_is_decoded_natively_as_it_is_unpacked() -> None:
    layer = PackedLinear(320, 140)
    layer.lay_out(((64, FORMATS["q4k"]), (36, FORMATS["q6k"]), (40, FORMATS["q4a"])))
    layer.packed.copy_(torch.randint(0, 60, layer.packed.shape, dtype=torch.uint8))
    unpacked = torch.cat([unpack(packed, *shape, format) for packed, shape, format in layer.parts()])
    torch.testing.assert_close(layer.decoded(), unpacked, rtol=1e-6, atol=1e-7)


@needs_native
@pytest.mark.parametrize(
    ("pieces", "halves"), [((128,), 2), ((40, 40), 2), ((80,), 0), ((32, 64), 0), ((64, 32, 32), 0)]
)
def test_a_weight_has_halves_where_no_unit_is_in_both(pieces: tuple[int, ...], halves: int) -> None:
    layer = PackedLinear(64, sum(pieces))
    layer.lay_out(tuple((rows, FORMATS["q8"]) for rows in pieces))
    layer.fill(0, torch.randn(sum(pieces), 64))
    whole, found = torch.cat([unpack(p, *shape, f) for p, shape, f in layer.parts()]), layer.halves()
    assert len(found) == halves
    assert not found or torch.equal(torch.cat([unpack(p, *shape, f) for p, shape, f in found]), whole)


@needs_native
def test_input_may_lie_in_memory_as_it_likes() -> None:
    layer, x = PackedLinear(64, 40), torch.randn(64, 5).T
    layer.fill(0, torch.randn(40, 64))
    assert torch.equal(layer(x), layer(x.contiguous()))


@needs_native
def test_gradients_pass_through_a_packed_layer_to_its_input() -> None:
    """What QLoRA needs."""
    layer = PackedLinear(64, 40, bias=True)
    layer.fill(0, torch.randn(40, 64))
    x = torch.randn(2, 3, 64, requires_grad=True)
    layer(x).sum().backward()
    exact = unpack(*next(layer.parts())[:1], 40, 64, FORMATS["q8"]).sum(0)
    torch.testing.assert_close(x.grad[1, 2], exact)
    torch.testing.assert_close(layer(x.detach()), layer(x).detach(), rtol=0.02, atol=0.3)
