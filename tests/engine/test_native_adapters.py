"""Adapters in a native step: each row its own, as the adapted decoder says, and bit for bit as if it were alone."""

import gc
import weakref

import pytest
import torch
from adapter_decoders import random_adapter
from native_cases import assert_alike, wanted
from test_native import CONFIGS, LEVELS, packed_decoder, tokens_of

from myna.engine.engine import engine_for
from myna.engine.request import Plan, Request, Sequence, Slice
from myna.engine.runner import PagedRunner
from myna.kernels import build, library
from myna.model import Adapter, Decoder
from myna.model.lora import attach, detach
from myna.records import Sampling

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing runs as a program")
# The decoder's adapters read numbers that are not rounded to 8 bits. A wrong operation costs 50 % and more here too.
WITHIN = 0.15
ADAPTED = [
    "llama", "qwen2, bias", "gemma2, caps and windows", "phi3, part of a head turned", "gpt2", "mixtral",
    "qwen2_moe, one layer dense",
]  # fmt: skip


def sequence(length: int, blocks: list[int], adapter: int, seed: int = 0) -> Sequence:
    made = Sequence(
        Request(seed, tuple(tokens_of(length, seed)), Sampling(), adapter=adapter), 0, tokens_of(length, seed)
    )
    made.blocks = blocks
    return made


def runner_with(decoder: Decoder, *adapters: Adapter, blocks: int = 40) -> PagedRunner:
    """Numbered from 1 on."""
    runner = PagedRunner(decoder, blocks)
    for number, adapter in enumerate(adapters, start=1):
        runner.adapters[number] = runner.prepare(adapter)
    return runner


@torch.inference_mode()
@pytest.mark.parametrize("config", ADAPTED)
def test_a_program_with_an_adapter_is_its_adapted_decoder(config: str) -> None:
    decoder = packed_decoder(CONFIGS[config])
    adapters = random_adapter(decoder, 1), random_adapter(decoder, 2, rank=1, only="attention")
    plain, _ = wanted(decoder, tokens_of(60))
    for number, adapter in enumerate(adapters, start=1):
        attach(decoder, adapter)
        exact, decided = wanted(decoder, tokens_of(60))
        detach(decoder)
        runner = runner_with(decoder, *adapters)
        got = runner.run(Plan((Slice(sequence(60, [0, 1, 2, 3], number), 0, 60),)))
        if decided[-1]:
            assert_alike(got, exact[-1:], WITHIN)
            assert (exact - plain)[-1].std() > 0.3 * plain[-1].std(), "the adapter changes nothing"


@torch.inference_mode()
@pytest.mark.parametrize("level", LEVELS[:1] + [pytest.param(level, marks=pytest.mark.slow) for level in LEVELS[1:]])
@pytest.mark.parametrize("config", ["llama", "phi3, part of a head turned", "gpt2", "qwen2_moe, one layer dense"])
def test_a_row_beside_other_adapters_is_bit_for_bit_itself_alone(
    config: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decodes, a prefill and chunks, of no adapter and of three, in one step; and each by itself, where no other adapter is
    even loaded, or none at all."""
    monkeypatch.setenv(build.VARIABLE, level)
    decoder = packed_decoder(CONFIGS[config])
    adapters = [random_adapter(decoder, seed, rank) for seed, rank in ((1, 4), (2, 16), (3, 37))]
    together, blocks = runner_with(decoder, *adapters), iter(range(40))
    plan = []
    for seed, (length, start, adapter) in enumerate(
        [(50, 49, 0), (33, 32, 1), (40, 0, 2), (17, 16, 3), (60, 20, 1), (20, 0, 0)]
    ):
        whole = sequence(length, [next(blocks) for _ in range(-(-length // 16))], adapter, seed)
        if start:
            together.run(Plan((Slice(whole, 0, start),)))
        plan.append(Slice(whole, start, length))
    got = together.run(Plan(tuple(plan))).clone()
    for row, piece in enumerate(plan):
        number = piece.sequence.request.adapter
        alone = runner_with(decoder)
        if number:
            alone.adapters[number] = alone.prepare(adapters[number - 1])
        assert torch.equal(alone.run(Plan((Slice(piece.sequence, 0, piece.stop),))), got[row : row + 1]), piece


@torch.inference_mode()
def test_rows_without_an_adapter_pay_nothing() -> None:
    """The program of a step in which no row has one is the model's own, whatever is loaded."""
    decoder = packed_decoder(CONFIGS["llama"])
    plain, loaded = runner_with(decoder), runner_with(decoder, random_adapter(decoder, 1))
    assert loaded.native
    assert plain.native
    codes = [op.code for op in plain.native.program.ops]
    expected = plain.run(Plan((Slice(sequence(20, [0, 1], 0), 0, 20),)))
    assert torch.equal(loaded.run(Plan((Slice(sequence(20, [0, 1], 0), 0, 20),))), expected)
    assert [op.code for op in loaded.native.program.ops] == codes
    assert loaded.native._adapted is None


@torch.inference_mode()
@pytest.mark.parametrize("config", ["llama", "gpt2"])
def test_the_decoder_honours_adapters_of_rows_too(config: str) -> None:
    decoder = packed_decoder(CONFIGS[config])
    adapters = random_adapter(decoder, 1), random_adapter(decoder, 2)
    native, readable = runner_with(decoder, *adapters), PagedRunner(decoder, 40)
    readable.native = None
    for number, adapter in enumerate(adapters, start=1):
        readable.adapters[number] = readable.prepare(adapter)
    plan = Plan(tuple(Slice(sequence(30, [2 * n, 2 * n + 1], n % 3, n), 0, 30) for n in range(6)))
    assert_alike(readable.run(plan), native.run(plan), WITHIN)
    assert readable._by_row.model is decoder
    assert not any(module._forward_hooks for module in decoder.modules()), "whoever else uses the model saw adapters"


GREEDY = Sampling(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.mark.parametrize("draft_rows", [0, 16])
def test_answers_of_many_adapters_together_are_those_of_each_alone(draft_rows: int) -> None:
    """Through the whole engine: chunks, the prefix cache, guesses by lookup and by a draft model, preemption."""
    decoder, draft = packed_decoder(CONFIGS["llama"]), packed_decoder(CONFIGS["qwen2, bias"])
    adapters = [random_adapter(decoder, seed, size=0.5) for seed in (1, 2, 3)]
    prompts = [tokens_of(40 + k // 4, k // 4) * 2 for k in range(8)]  # the same of every adapter

    def answers(asked: list[int], **how: object) -> list[list[int]]:
        engine = engine_for(decoder, kv_tokens=1024, **how)  # type: ignore[arg-type]
        numbers = [0, *(engine.add_adapter(engine.runner.prepare(adapter)) for adapter in adapters)]
        found: list[list[int]] = [[] for _ in asked]
        for place, k in enumerate(asked):
            engine.submit(
                prompts[k],
                GREEDY,
                lambda update, place=place: bool(found[place].append(update.choice.id)),
                adapter=numbers[k % 4],
            )
        while not engine.idle:
            engine.step()
            engine.scheduler.check()
        return found

    alone = [answers([k], prefix_cache=False)[0] for k in range(8)]
    assert len({tuple(answer) for answer in alone}) == 8
    assert answers([*range(8)] * 2, budget=33, max_running=7, draft_rows=draft_rows, draft=draft) == alone * 2


def test_no_adapter_finds_what_another_computed() -> None:
    decoder = packed_decoder(CONFIGS["llama"])
    engine = engine_for(decoder, kv_tokens=1024)
    numbers = [0, *(engine.add_adapter(engine.runner.prepare(random_adapter(decoder, seed))) for seed in (1, 1, 2))]
    cached: dict[int, int] = {}
    for number in numbers * 2:
        engine.submit(tokens_of(64), GREEDY, lambda u, n=number: bool(cached.__setitem__(n, u.cached)), adapter=number)
        while not engine.idle:
            engine.step()
        assert cached[number] == (0 if engine.scheduler.prefix_queries <= 64 * len(numbers) else 48)


def test_a_dropped_adapter_ends_its_requests_and_no_other_and_is_freed() -> None:
    decoder = packed_decoder(CONFIGS["llama"])
    engine = engine_for(decoder, kv_tokens=1024)
    prepared = engine.runner.prepare(random_adapter(decoder, 1))
    gone, here = (
        weakref.ref(next(iter(prepared.weights.values()))),
        engine.add_adapter(engine.runner.prepare(random_adapter(decoder, 2))),
    )
    number, heard = engine.add_adapter(prepared), {}
    del prepared
    for adapter in (number, here, 0):
        engine.submit(
            tokens_of(20), GREEDY, lambda u, a=adapter: bool(heard.setdefault(a, []).append(u)), adapter=adapter
        )
    for _ in range(4):
        engine.step()
    engine.drop_adapter(number)
    gc.collect()
    assert gone() is None, "its memory is kept"
    assert heard[number][-1].error == "its adapter was unloaded"
    engine.submit(tokens_of(20), GREEDY, lambda u: bool(heard.setdefault(-1, []).append(u)), adapter=number)
    assert [u.error for u in heard[-1]] == ["its adapter was unloaded"]
    while not engine.idle:
        engine.step()
    engine.scheduler.check()
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count
    assert [len(heard[a]) for a in (here, 0)] == [24, 24]
    again = engine.add_adapter(engine.runner.prepare(random_adapter(decoder, 1)))
    assert again not in (number, here)
    engine.submit(tokens_of(20), GREEDY, lambda u: bool(heard.setdefault(again, []).append(u)), adapter=again)
    while not engine.idle:
        engine.step()
    said = [u.choice.id for u in heard[again]]
    assert said[:3] == [u.choice.id for u in heard[number] if u.choice][:3]
    assert said != [u.choice.id for u in heard[here]]
