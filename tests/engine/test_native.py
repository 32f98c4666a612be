"""The program of native kernels says what the readable decoder says, for every family it takes."""

from itertools import pairwise

import pytest
import torch
from native_cases import assert_alike, sequence, slice_of, wanted

from myna.engine.engine import engine_for
from myna.engine.forward import Buffers
from myna.engine.native import NativeStep, why_not
from myna.engine.pages import Pages
from myna.engine.request import Plan, Sequence, Slice
from myna.engine.runner import PagedRunner
from myna.kernels import FORMATS, build, library, row_bytes
from myna.model import Decoder, Spec
from myna.model.config import Config
from myna.model.families import read_spec
from myna.model.fit import _activation_bytes
from myna.model.linear import PackedLinear
from myna.records import Sampling

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing runs as a program")

LEVELS = [level for level, (needs, _) in build.LEVELS.items() if needs <= build.features()]
GREEDY = Sampling(temperature=0.0, max_tokens=5, ignore_eos=True)
LLAMA = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024,
}  # fmt: skip
EXPERTS = {"num_experts": 9, "num_experts_per_tok": 3, "moe_intermediate_size": 40}
GEMMA = LLAMA | {"head_dim": 48, "query_pre_attn_scalar": 48, "sliding_window": 20}
CONFIGS = {
    "llama": LLAMA,
    "one key head": LLAMA | {"num_key_value_heads": 1, "head_dim": 64, "tie_word_embeddings": True},
    "llama, rope stretched": LLAMA
    | {"rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 256}},
    "qwen2, bias": LLAMA | {"model_type": "qwen2", "head_dim": None},
    "qwen3, norms of q and k": LLAMA | {"model_type": "qwen3", "head_dim": 32, "rms_norm_eps": 0.3},
    "mistral, window": LLAMA | {"model_type": "mistral", "sliding_window": 33},
    "phi3, part of a head turned": LLAMA
    | {"model_type": "phi3", "head_dim": None, "partial_rotary_factor": 0.5, "pad_token_id": 0},
    "gemma2, caps and windows": GEMMA
    | {"model_type": "gemma2", "final_logit_softcapping": 1.0, "attn_logit_softcapping": 1.0},
    "gemma3, two ropes": GEMMA | {"model_type": "gemma3_text", "rms_norm_eps": 0.3},
    "gpt2": {"model_type": "gpt2", "n_embd": 96, "n_layer": 2, "n_head": 4, "n_positions": 1024, "vocab_size": 97,
             "layer_norm_epsilon": 0.3},
    "odd heads": LLAMA | {"head_dim": 24},
    "odd heads, norms of q and k": LLAMA | {"model_type": "qwen3", "head_dim": 40},
    "odd heads, part turned": LLAMA
    | {"model_type": "phi3", "head_dim": 20, "partial_rotary_factor": 0.5, "pad_token_id": 0},
    "mixtral": LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe, one layer dense": LLAMA
    | {"model_type": "qwen2_moe", "mlp_only_layers": [1], "shared_expert_intermediate_size": 80} | EXPERTS,
    "qwen3_moe": LLAMA | {"model_type": "qwen3_moe", "norm_topk_prob": True, "decoder_sparse_step": 2} | EXPERTS,
}  # fmt: skip
# What laws of batching are worth repeating for.
NEWER = ["gpt2", "odd heads, norms of q and k", "mixtral", "qwen2_moe, one layer dense"]


def packed_decoder(config: dict, kept: str | None = None) -> Decoder:
    """Random, in int8, with norms, biases and logits that matter."""
    spec: Spec = read_spec(Config({k: v for k, v in config.items() if v is not None}))
    torch.manual_seed(len(spec.family))
    decoder = Decoder(spec, PackedLinear, kept=kept).requires_grad_(False)
    for name, parameter in decoder.named_parameters():
        parameter.normal_(std=0.3) if "bias" in name else parameter.add_(torch.randn_like(parameter) * 0.1)
        if "router" in name:
            parameter.normal_(std=0.5)  # decided ones
    for name, module in decoder.named_modules():
        if isinstance(module, PackedLinear):
            if name.endswith("gate_up"):  # as load_model lays them out
                module.lay_out(((module.rows_total // 2, FORMATS["q8"]),) * 2)
            module.fill(0, torch.randn(module.rows_total, module.columns) / module.columns**0.5)
    return decoder.eval()


def tokens_of(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def random_sequence(length: int, blocks: list[int], seed: int = 0) -> Sequence:
    return sequence(tokens_of(length, seed), blocks, seed)


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [(0, 300), (0, 7, 8, 9, 64, 299, 300), (0, 299, 300)])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_program_is_its_decoder_whole_in_chunks_and_a_token_at_a_time(config: str, cuts: tuple[int, ...]) -> None:
    decoder = packed_decoder(CONFIGS[config])
    assert why_not(decoder) is None
    runner = PagedRunner(decoder, 40)
    whole = random_sequence(300, [3, 39, 0, *range(4, 30)], seed=5)
    exact, decided = wanted(decoder, whole.tokens)
    assert decided.float().mean() > 0.75
    for start, stop in pairwise(cuts):
        got = runner.run(Plan((slice_of(whole, start, stop),)))
        if decided[stop - 1]:
            assert_alike(got, exact[stop - 1 : stop])


@torch.inference_mode()
@pytest.mark.parametrize("level", LEVELS[:1] + [pytest.param(level, marks=pytest.mark.slow) for level in LEVELS[1:]])
@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
@pytest.mark.parametrize("config", CONFIGS)
def test_logits_are_bit_for_bit_the_same_however_their_sequence_is_cut(
    config: str, kept: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, in chunks, verified as drafts, and token by token; across strips, parts and windows."""
    monkeypatch.setenv(build.VARIABLE, level)
    decoder = packed_decoder(CONFIGS[config], kept)
    tokens, blocks = tokens_of(300), [3, 39, 0, *range(4, 30)]

    def logits(*cuts: int) -> torch.Tensor:
        runner = PagedRunner(decoder, 40)  # its own pages: everything is computed anew
        steps = []
        for start, stop in pairwise(cuts):
            known = sequence(tokens[: start + 1], blocks)
            steps.append(runner.run(Plan((Slice(known, start, stop, draft=tuple(tokens[start + 1 : stop])),))).clone())
        return torch.cat(steps)

    whole = logits(0, 300)
    assert torch.equal(logits(0, 7, 8, 9, 40, 64, 191, 258, 299, 300), whole)
    assert torch.equal(logits(0, 251, *range(252, 262), 300), whole)


@torch.inference_mode()
@pytest.mark.parametrize("config", ["llama", "gemma2, caps and windows", *NEWER])
def test_a_row_of_a_mixed_step_is_bit_for_bit_itself_alone(config: str) -> None:
    """Decodes, one long enough to be cut in parts, prefills and a chunk that samples nothing, in one step and alone."""
    decoder = packed_decoder(CONFIGS[config])
    together, alone = NativeStep(decoder, Pages(decoder.spec, 80, decoder.kv_format)), None
    blocks = iter(range(80))
    spans = [(299, 300), (40, 41), (0, 17), (16, 50), (599, 600)]
    wholes = [random_sequence(b, [next(blocks) for _ in range(-(-b // 16))], seed) for seed, (_, b) in enumerate(spans)]
    for whole, (start, _) in zip(wholes, spans, strict=True):
        if start:
            together.run(Plan((Slice(whole, 0, start),)))
    alone = NativeStep(decoder, together.pages)
    slices = [slice_of(w, *span) for w, span in zip(wholes, spans, strict=True)]
    slices[3] = Slice(wholes[3], 16, 49)  # not to its end
    got = together.run(Plan(tuple(slices))).clone()
    rows = torch.cat([alone.run(Plan((piece,))).clone() for piece in slices])
    assert len(got) == 4
    assert torch.equal(got, rows)


def spoil(pages: Pages, slots: list[int], layers: list[int]) -> None:
    """Keys and values of NaN."""
    numbers = torch.full((len(slots), pages.keys.shape[2], pages.format.dim), torch.nan)
    for layer in layers:
        pages.format.write(pages.keys[layer], pages.values[layer], torch.tensor(slots), numbers, numbers)


@torch.inference_mode()
@pytest.mark.parametrize("config", ["llama", *NEWER])
def test_a_broken_sequence_does_not_reach_its_batch_mates(config: str) -> None:
    decoder = packed_decoder(CONFIGS[config])
    step = NativeStep(decoder, Pages(decoder.spec, 8, decoder.kv_format))
    good, bad = random_sequence(20, [0, 1], 1), random_sequence(20, [2, 3], 2)
    step.run(Plan((Slice(good, 0, 19), Slice(bad, 0, 19))))
    expected = step.run(Plan((Slice(good, 19, 20),))).clone()
    spoil(step.pages, [2 * 16 + 3], layers=[1])
    got = step.run(Plan((Slice(bad, 19, 20), Slice(good, 19, 20))))
    assert got[0].isnan().all()
    assert torch.equal(got[1:], expected)


@torch.inference_mode()
@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
def test_what_lies_behind_a_sequence_in_its_last_block_is_never_read(kept: str) -> None:
    decoder = packed_decoder(CONFIGS["llama"], kept)
    step = NativeStep(decoder, Pages(decoder.spec, 2, decoder.kv_format))
    whole = random_sequence(18, [0, 1])
    expected = step.run(Plan((slice_of(whole, 0, 18),))).clone()
    spoil(step.pages, [*range(18, 32)], layers=[0, 1, 2])
    assert torch.equal(step.run(Plan((slice_of(whole, 0, 18),))), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
@pytest.mark.parametrize("config", ["llama", "gemma2, caps and windows", "odd heads"])
def test_the_decoder_reads_and_writes_the_same_pages(config: str, kept: str) -> None:
    """A prompt computed by either, and what follows by the other."""
    decoder = packed_decoder(CONFIGS[config], kept)
    native = PagedRunner(decoder, 24)
    readable = PagedRunner(decoder, 24)
    readable.native, whole = None, random_sequence(300, [5, 21, *range(6, 21), 0, 1, 2])
    exact, _ = wanted(decoder, whole.tokens)
    for first, second in ((native, readable), (readable, native)):
        first.run(Plan((Slice(whole, 0, 290),)))
        second.pages = first.pages
        if second.native:
            second.native = NativeStep(decoder, first.pages)
        assert_alike(second.run(Plan((slice_of(whole, 290, 300),))), exact[-1:])


@torch.inference_mode()
def test_an_undecided_router_takes_the_lowest_experts_as_the_decoders_does() -> None:
    decoder = packed_decoder(CONFIGS["qwen2_moe, one layer dense"])
    for name, parameter in decoder.named_parameters():
        if "router" in name:
            parameter.zero_()
    whole = random_sequence(9, [0])
    exact, decided = wanted(decoder, whole.tokens)
    assert not decided.any()
    assert_alike(PagedRunner(decoder, 1).run(Plan((slice_of(whole, 0, 9),))), exact[-1:])


MANY_EXPERTS = LLAMA | {
    "model_type": "qwen3_moe",
    "intermediate_size": 32,
    "num_experts_per_tok": 8,
    "num_experts": 64,
    "moe_intermediate_size": 40,
}


@pytest.mark.parametrize("config", [*CONFIGS.values(), MANY_EXPERTS], ids=[*CONFIGS, "many experts"])
def test_the_buffers_of_a_step_are_in_the_memory_estimate(config: dict) -> None:
    spec = read_spec(Config({k: v for k, v in config.items() if v is not None}))
    buffers = Buffers(spec, rows=512, samples=1)
    held = {t.data_ptr(): t.nbytes for t in vars(buffers).values() if isinstance(t, torch.Tensor)}
    assert sum(held.values()) <= _activation_bytes(spec, "int8", 512)


def test_an_experts_and_the_shared_experts_hidden_layers_fit_their_buffer() -> None:
    for shared, inner in ((900, 40), (80, 300)):
        sizes = EXPERTS | {"shared_expert_intermediate_size": shared, "moe_intermediate_size": inner}
        buffers = Buffers(read_spec(Config(LLAMA | {"model_type": "qwen2_moe"} | sizes)), rows=10, samples=1)
        assert buffers.hidden.nbytes >= 10 * max(row_bytes(shared), 3 * row_bytes(inner))


def test_weights_that_are_not_packed_run_through_the_decoder() -> None:
    """Who asked for packed weights and cannot have a program is told so; a float32 model is as it should be."""
    decoder = Decoder(read_spec(Config(LLAMA)))
    assert why_not(decoder) == "its weights are not packed"
    assert len(engine_for(decoder, kv_tokens=64).generate([[1, 2, 3]], GREEDY)[0][0]) == 5


@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
@pytest.mark.parametrize("config", ["llama", "gemma3, two ropes", *NEWER])
def test_batched_preempted_and_cached_answers_are_the_single_ones(config: str, kept: str) -> None:
    """Bit for bit: log-probabilities too, however prompts were cut, whatever the cache held and whoever was put aside."""
    decoder = packed_decoder(CONFIGS[config], kept)
    prompts = [*(tokens_of(n, n) for n in (3, 18, 30, 41, 5, 16)), tokens_of(18, 18) + tokens_of(9, 9)]
    sampling = Sampling(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=1)

    def answers(kv_tokens: int, one_by_one: bool = False, **how: int) -> list[list[tuple[int, float | None]]]:
        engine = engine_for(decoder, kv_tokens=kv_tokens, max_len=80, prefix_cache=True, **how)
        groups = [[p] for p in prompts] if one_by_one else [prompts]
        found = [answer[0] for group in groups for answer in engine.generate(group, sampling)]
        return [[(choice.id, choice.logprob) for choice in answer] for answer in found]

    single = answers(1000, one_by_one=True)
    assert answers(1000) == single
    assert answers(160) == single
    assert answers(1000, budget=7, max_running=6) == single
    assert answers(1000, draft_rows=8) == single
