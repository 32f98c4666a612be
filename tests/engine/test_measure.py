"""`myna bench` counts what it says: prompts of their own, whole answers, and an engine left as it was found."""

from itertools import count

import pytest
import torch

from myna.engine import measure as module
from myna.engine.engine import Engine, engine_for
from myna.engine.measure import bytes_read, measure, read_bandwidth
from myna.model import AttentionRule, Decoder, Norm, Rope, Spec
from myna.model.linear import int8_linear
from myna.model.spec import MoE
from myna.records import RequestError, Sampling


@pytest.fixture(scope="module")
def model() -> Decoder:
    spec = Spec(
        family="llama", vocab=500, width=64, layers=1, heads=4, kv_heads=2, head_dim=16, hidden=96, max_len=2048,
        norm=Norm(), rules=(AttentionRule(0.25),), rope=Rope(dim=16), tied=True,
    )  # fmt: skip
    return Decoder(spec, int8_linear).eval()


class Watched:
    """The engine's own `submit`, and what it was asked."""

    def __init__(self, engine: Engine):
        self.prompts: list[tuple[int, ...]] = []
        self.tokens = 0
        self._submit = engine.submit
        engine.submit = self.submit  # type: ignore[method-assign]

    def submit(self, ids: list[int], sampling: Sampling, listen: object) -> int:
        self.prompts.append(tuple(ids))
        return self._submit(ids, sampling, self.hear)

    def hear(self, update: object) -> bool:
        self.tokens += 1
        return False


@torch.inference_mode()
def test_every_row_is_measured_on_prompts_of_its_own(model: Decoder) -> None:
    engine = engine_for(model, kv_tokens=40 * 400, prefix_cache=False)
    watched = Watched(engine)
    speeds = list(measure(engine, model, Sampling(temperature=0.7, top_k=20), long=700))
    assert [(s.what, s.context, s.batch) for s in speeds] == [
        ("prefill", 512, 1),
        *((what, 128, batch) for what in ("decode", "decode sampled") for batch in (1, 8, 32)),
        ("requests", 128, 8), ("requests", 128, 32), ("prefill", 700, 1), ("decode", 700, 1),
    ]  # fmt: skip
    assert all(s.tokens_per_second > 0 for s in speeds)
    assert len(set(watched.prompts)) == len(watched.prompts) == 1 + 3 + 2 * 41 + 40 + 2
    assert watched.tokens >= 40 * 128
    assert engine.idle
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count


@torch.inference_mode()
def test_batches_that_the_engine_does_not_run_at_once_are_left_out(model: Decoder) -> None:
    engine = engine_for(model, kv_tokens=4000, prefix_cache=False, max_running=8)
    assert max(s.batch for s in measure(engine, model, Sampling(temperature=0.0))) == 8


@torch.inference_mode()
def test_batches_that_there_is_no_room_for_are_left_out(model: Decoder) -> None:
    engine = engine_for(model, kv_tokens=31 * 256, prefix_cache=False)
    assert {s.batch for s in measure(engine, model, Sampling(temperature=0.0))} == {1, 8}


def test_a_long_prompt_that_cannot_be_is_refused_before_anything_is_timed(model: Decoder) -> None:
    engine = engine_for(model, kv_tokens=4000, prefix_cache=False, max_len=500)
    with pytest.raises(RequestError, match="500"):
        next(measure(engine, model, Sampling(temperature=0.0), long=400))


def test_a_step_reads_its_weights_once_and_the_keys_and_values_of_everybody(model: Decoder) -> None:
    tables = [t for name, t in model.named_buffers() if name.startswith("rotary.")]
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()]) - sum(t.nbytes for t in tables)
    assert bytes_read(model, 1, 0) == weights  # the embedding is the head too
    assert bytes_read(model, 3, 100) == weights + 300 * model.kv_bytes_per_token


def test_a_mixture_reads_the_experts_that_are_visited_and_none_twice() -> None:
    spec = Spec(
        family="mixtral", vocab=50, width=32, layers=1, heads=2, kv_heads=2, head_dim=16, hidden=32, max_len=64,
        norm=Norm(), rules=(AttentionRule(0.25),), rope=Rope(dim=16), tied=True, moe=MoE(experts=4, top_k=2, hidden=32, norm_topk=True),
    )  # fmt: skip
    mixture = Decoder(spec)
    experts = sum(t.nbytes for name, t in mixture.named_parameters() if ".experts." in name)
    one, two, many = (bytes_read(mixture, batch, 0) for batch in (1, 2, 9))
    assert two == many == one + experts / 2


def test_the_hosts_share_is_what_is_not_spent_in_the_forward_pass(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = count(0, 0.9)
    monkeypatch.setattr(module, "_seconds", lambda work: 1.0 if work() is None else 0.0)
    monkeypatch.setattr(module, "_inside", lambda engine: next(spent))
    rate, host = module._decode(engine_for(model, kv_tokens=4000), 3, 8, Sampling(temperature=0.0), steps=2)
    assert (rate, host) == (3.0, pytest.approx(0.1))


def test_a_bandwidth_is_one_that_a_memory_may_have() -> None:
    assert 1e8 < read_bandwidth(rounds=1) < 1e13
