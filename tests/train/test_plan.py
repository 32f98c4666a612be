"""What a run will take: autograd, torch's FLOP counter and the model itself are the judges of the arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made import tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from myna.kernels import library
from myna.model import Causal, Decoder, describe, load_model
from myna.model.load import MAKE, TABLES
from myna.model.lora import Lora as LoraModule
from myna.model.lora import attach
from myna.model.spec import Spec
from myna.modeldir import ModelDir
from myna.records import MynaError
from myna.train.config import Lora, Model, Optim
from myna.train.loss import cross_entropy
from myna.train.optim import make_optimizers
from myna.train.peft import adapt, beside, choose, fresh
from myna.train.plan import (
    Adapters,
    Profile,
    Work,
    activations,
    changes,
    disk,
    memory,
    moments,
    optimal_tokens,
    plan,
    token_flops,
)
from myna.train.shape import shape_spec
from myna.train.trainee import make_trainee

SPEC = shape_spec(3, vocab=512, context=256)
PROFILE = Profile(machine="a machine", precision="float32", flops=1e11, bandwidth=1e10, layer=2e-6, rest=1e-6, update=1e-9,
                  base=300 << 20, slack=1.5, memory=16 << 30)  # fmt: skip
GB = 1 << 30


def work(**change: object) -> Work:
    fields: dict[str, object] = {"spec": SPEC, "context": 128, "tokens": 1_000_000, "rows": 16, "micro": 8}
    return Work(**fields | change)  # type: ignore[arg-type]


def forward(
    spec: Spec, rows: int, context: int, of: Decoder | None = None
) -> tuple[Decoder, torch.Tensor, torch.Tensor]:
    model = of or Decoder(spec)
    ids = torch.randint(spec.vocab, (rows, context))
    return model, ids, model(ids, torch.arange(context).expand(rows, -1), Causal())


def kept_by_autograd(
    spec: Spec, precision: str = "float32", rows: int = 2, context: int = 64, of: Decoder | None = None
) -> int:
    """Bytes of what is saved for the backward pass, each storage once, and of the result."""
    seen: dict[int, torch.Tensor] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        seen[saved.untyped_storage().data_ptr()] = saved
        return saved

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved), autocast:
        model, _, hidden = forward(spec, rows, context, of)
    pack(hidden)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in seen.items() if place not in own)


@pytest.mark.parametrize(
    "spec",
    [
        *[SPEC, shape_spec(4, vocab=300, context=64), shape_spec(3, vocab=512, context=64, experts=8)],
        *[replace(SPEC, kv_heads=1), replace(SPEC, qk_norm=False), replace(SPEC, gated=False), SPEC.untied()],
    ],
)
def test_activations_are_what_autograd_keeps(spec: Spec) -> None:
    assert activations(spec, 128) == pytest.approx(kept_by_autograd(spec), rel=0.01)


@pytest.mark.parametrize("spec", [SPEC, shape_spec(4, vocab=300, context=64), replace(SPEC, gated=False)])
def test_activations_of_bfloat16_are_what_autograd_keeps(spec: Spec) -> None:
    assert activations(spec, 128, precision="bfloat16") == pytest.approx(kept_by_autograd(spec, "bfloat16"), rel=0.05)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("kept", ["float32", "bfloat16", "nf4"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("spec", "rank"), [(SPEC, 4), (SPEC, 16), (shape_spec(4, vocab=300, context=64), 8)])
def test_activations_beside_frozen_weights_are_what_autograd_keeps(
    spec: Spec, rank: int, precision: str, kept: str, kind: str
) -> None:
    lora = Lora(rank=rank, kind=kind)  # type: ignore[arg-type]
    model = Decoder(spec, MAKE[kept], table=TABLES.get(kept)).requires_grad_(False)
    attach(model, adapter := fresh(model, lora, seed=0))
    for one in adapter:
        one.requires_grad_(True)
    rows = sum(one.stop - one.start for one in adapter)
    beside = Adapters(
        lora=lora,
        precision=kept,
        trained=1,
        inner=7 * spec.layers * rank,
        scaled=rows * (kind == "dora"),
        frozen=1,
        decoded=1,
    )
    told = activations(spec, 128, precision=precision, beside=beside)
    assert told == pytest.approx(kept_by_autograd(spec, precision, of=model), rel=0.05)


@pytest.mark.parametrize("lora", [Lora(rank=3), Lora(rank=2, kind="dora", base="nf4", targets=("q_proj", "down_proj"))])
def test_what_is_trained_and_what_is_frozen_are_counted_as_they_are(lora: Lora, tmp_path: Path) -> None:
    of = make_trainee(Model(depth=2, tokenizer=str(tokenizer(tmp_path / "words"))), 64, seed=0)
    of.publish(tmp_path / "base", {})
    directory = ModelDir.open(tmp_path / "base")
    told = beside(directory, lora)
    decoder = load_model(directory, "float32" if lora.base == "float32" else lora.base)
    frozen = sum(t.nbytes for t in (*decoder.parameters(), *decoder.buffers())) - sum(
        t.nbytes for name, t in decoder.named_buffers() if "rotary" in name
    )
    adapted = adapt(replace(of, module=decoder, model=decoder), lora, seed=0)
    assert told.trained == sum(p.numel() for p in adapted.trained().values())
    assert told.frozen == frozen
    loras = [m for m in decoder.modules() if isinstance(m, LoraModule)]
    assert told.inner == sum(one.rank for one in loras)
    assert told.scaled == sum(len(one.magnitude) for one in loras if one.magnitude is not None)
    adapted.publish(tmp_path / "adapter", {})
    again = beside(directory, Lora(start=str(tmp_path / "adapter"), base=lora.base))
    assert replace(again, lora=told.lora) == told
    assert (again.lora.rank, again.lora.kind) == (lora.rank, lora.kind)
    assert {part.path for part in choose(of.decoder.spec, again.lora.targets)} == {
        part.path for part in choose(of.decoder.spec, lora.targets)
    }


def test_of_weights_in_few_bits_the_head_is_the_largest_to_decode_unless_tables_are_floats(smollm2: Path) -> None:
    directory = ModelDir.open(smollm2)
    stored, nf4 = (beside(directory, Lora(rank=8, base=base)) for base in ("stored", "nf4"))
    spec, _ = describe(directory)
    assert stored.decoded == 4 * spec.vocab * spec.width * (1 if library() else 3)
    assert nf4.decoded == 12 * 2 * spec.hidden * spec.width
    assert beside(directory, Lora(rank=8, kind="dora")).decoded == 8 * spec.hidden * spec.width


def test_adapters_take_less_of_everything_but_activations() -> None:
    beside = Adapters(
        lora=Lora(rank=4), precision="float32", trained=1000, inner=84, frozen=4 * SPEC.parameters(), decoded=0
    )
    whole, small = plan(work(), PROFILE), plan(work(adapters=beside), PROFILE)
    assert small.memory.gradients == 4000
    assert small.memory.moments == memory(work(adapters=beside, optimizer="muon"), 0).moments == 8000  # AdamW's
    assert whole.memory.logits - small.memory.logits == 4 * SPEC.vocab * SPEC.width  # the head has no gradient
    assert small.memory.weights == 4 * SPEC.parameters() + 4000
    assert small.memory.total < whole.memory.total
    assert small.disk == 5 * 12 * 1000 - 8000
    assert 0.6 < small.flops / whole.flops < 0.8
    assert all("depth" not in change.flags for change in changes(work(adapters=beside), PROFILE, limit=320 << 20))


@pytest.mark.parametrize("spec", [SPEC, SPEC.untied(), replace(SPEC, kv_heads=1), shape_spec(2, vocab=300, context=64)])
def test_flops_are_those_that_torch_counts(spec: Spec) -> None:
    rows, context = 2, 64
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model, _, hidden = forward(spec, rows, context)
        model.logits(hidden).sum().backward()
    told = sum(token_flops(spec, context)) * rows * context
    assert told == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize(("spec", "rank"), [(SPEC, 4), (SPEC.untied(), 64), (shape_spec(6, vocab=300, context=64), 16)])
def test_flops_beside_frozen_weights_are_those_that_torch_counts(spec: Spec, rank: int) -> None:
    rows, context = 2, 64
    of = Decoder(spec).requires_grad_(False)
    attach(of, adapter := fresh(of, Lora(rank=rank), seed=0))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model, _, hidden = forward(spec, rows, context, of)
        model.logits(hidden).sum().backward()
    trained = sum(p.numel() for one in adapter for p in one.parameters())
    # Nothing before the first layer is trained, so its first products pass nothing back.
    first = of.get_submodule("layers.0.attention.qkv")
    nothing = 2 * (first.get_parameter("base.weight").numel() + 3 * rank * spec.width)
    told = (sum(token_flops(spec, context, trained)) - nothing) * rows * context
    assert told == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_mixture_takes_the_flops_of_the_experts_at_work() -> None:
    few, many = (shape_spec(2, vocab=300, context=64, experts=experts) for experts in (2, 32))
    assert token_flops(many, 64)[0] == pytest.approx(token_flops(few, 64)[0], rel=0.1)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("spec", [SPEC, SPEC.untied()])
def test_moments_are_what_the_optimizers_keep(spec: Spec, kind: str) -> None:
    model, _, hidden = forward(spec, 1, 8)
    model.logits(hidden).sum().backward()
    kept = 0
    for optimizer in make_optimizers(model, Optim(kind=kind)):  # type: ignore[arg-type]
        optimizer.step()
        kept += sum(v.numel() for state in optimizer.state.values() for v in state.values() if v.ndim)
    assert moments(work(spec=spec, optimizer=kind)) == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize("kept", ["float32", "nf4"])
def test_the_loss_holds_no_more_than_the_plan_says(kept: str) -> None:
    """Every live tensor at the loss, chunked, beside the plan's logits; of NF4, whose head is bfloat16, too."""
    spec = shape_spec(1, vocab=4096, context=256)
    of = Decoder(spec, MAKE[kept], table=TABLES.get(kept)).requires_grad_(kept == "float32")
    model, ids, hidden = forward(spec, 4, 256, of)
    hidden = hidden if hidden.requires_grad else hidden.requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        cross_entropy(model, hidden, ids, torch.ones(4, 256))
    live = most = 0
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    beside = Adapters(lora=Lora(rank=1), precision=kept, trained=1, inner=1, frozen=1, decoded=0)
    adapters = None if kept == "float32" else beside
    told = memory(work(spec=spec, context=256, rows=4, micro=4, adapters=adapters), 0).logits
    assert told / 1.6 < most < told * 1.2


def test_the_parts_add_up_and_follow_what_is_asked() -> None:
    whole = memory(work(), 100)
    assert whole.total == sum(getattr(whole, name) for name in whole.__slots__)
    assert whole.weights == whole.gradients == SPEC.parameters() * 4
    assert memory(work(micro=4), 100).activations < whole.activations
    assert memory(work(recompute=True), 100).activations < whole.activations
    assert memory(work(optimizer="muon"), 100).moments < whole.moments == 8 * SPEC.parameters()
    assert disk(work(keep=3)) - disk(work(keep=2)) == 12 * SPEC.parameters()


def test_time_is_steps_times_what_was_measured() -> None:
    made = plan(work(tokens=1_000_000), PROFILE)
    assert made.work.steps == 489
    step = 16 * 128 * (3 * PROFILE.layer + PROFILE.rest) + SPEC.parameters() * PROFILE.update
    assert made.seconds == pytest.approx(489 * step)
    assert made.mfu == pytest.approx(sum(token_flops(SPEC, 128)) * made.tokens_per_second / PROFILE.flops)
    again = plan(work(recompute=True), PROFILE)
    assert 1.0 < again.seconds / made.seconds < 4 / 3
    assert optimal_tokens(SPEC) == 20 * SPEC.parameters()


def test_changes_fit_and_the_cheapest_come_first() -> None:
    big = work(spec=shape_spec(12, vocab=8192, context=1024), context=1024, rows=16, micro=16)
    need = plan(big, PROFILE)
    found = changes(big, PROFILE, limit=4 * GB)
    assert need.memory.total > 4 * GB
    assert len(found) == 3
    assert all(change.plan.memory.total <= 4 * GB for change in found)
    assert found[0].what == "compute fewer rows at once"
    assert found[0].plan.seconds == need.seconds
    assert found[0].plan.work.rows % found[0].plan.work.micro == 0
    larger = [m for m in (16, 8, 4, 2) if m > found[0].plan.work.micro]
    assert all(plan(replace(big, micro=m), PROFILE).memory.total > 4 * GB for m in larger), "a larger one would fit too"
    assert "activations again" in found[1].what
    assert found[1].plan.seconds > found[0].plan.seconds


def test_a_model_that_fits_nowhere_is_made_smaller_or_given_up() -> None:
    big = work(spec=shape_spec(24, vocab=8192, context=256), context=256)
    found = changes(big, PROFILE, limit=3 * GB)
    assert [c.what for c in found] == ["make a smaller model"]
    assert found[0].plan.work.spec.layers < 24
    assert changes(big, PROFILE, limit=1 << 20) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [({"micro": 17}, "only 16 rows"), ({"context": 300}, "reaches to 256"), ({"rows": 0}, "rows is 0"),
     ({"precision": "fp8"}, "float32 or bfloat16"), ({"optimizer": "sgd"}, "adamw or muon")],
)  # fmt: skip
def test_what_cannot_be_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(MynaError, match=words):
        work(**change)
