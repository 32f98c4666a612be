"""What adapters promise while they are trained: they begin as nothing, all else keeps its bytes, and all of them learns."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONTEXT, VOCAB, config, examples, loop, spec, trainee
from torch.utils.checkpoint import checkpoint

from myna.data import collate
from myna.kernels import library
from myna.model import Causal, Decoder
from myna.model.linear import PackedLinear
from myna.model.load import MAKE
from myna.model.lora import Adapted, Lora, attach, detach, merge, read_adapter
from myna.model.nf4 import NF4Linear
from myna.model.spec import MoE
from myna.modeldir import AdapterDir
from myna.records import DataError, MynaError
from myna.train.config import Config, Optim, Run
from myna.train.config import Lora as Told
from myna.train.method import Tensors
from myna.train.peft import adapt, choose
from myna.train.reference import Reference
from myna.train.trainee import Trainee, check_vocabulary

KINDS = ["lora", "rslora", "dora"]
IDS = torch.arange(2 * CONTEXT).view(2, CONTEXT) * 5 % VOCAB


def logits(of: Trainee | Decoder) -> torch.Tensor:
    decoder = of.decoder if isinstance(of, Trainee) else of
    return decoder.logits(decoder(IDS, torch.arange(CONTEXT).expand(2, -1), Causal()))


def kept_as(base: str) -> Trainee:
    """A trainee whose linears are kept in few bits."""
    if base == "int8" and library() is None:
        pytest.skip("there are no native kernels here")
    plain = trainee()
    few = Decoder(plain.decoder.spec, MAKE[base])
    for mine, theirs in zip(few.modules(), plain.decoder.modules(), strict=True):
        if isinstance(mine, NF4Linear | PackedLinear):
            mine.fill(0, theirs.weight.detach().clone())  # type: ignore[union-attr, operator]
    norms = {name: p for name, p in plain.decoder.named_parameters() if p.ndim == 1}
    few.load_state_dict(norms, strict=False)
    return replace(plain, module=few, model=few)


def told(steps: int = 4, **run: Any) -> Config:
    return config(optim=Optim(lr=1e-2, warmup=1), run=Run(steps=steps, rows=4, **run))


def trained(path: Path, of: Trainee, steps: int = 4) -> Trainee:
    path.mkdir(exist_ok=True)
    loop(path, told(steps), of).train()
    return of


def frozen(of: Trainee) -> dict[str, str]:
    """A hash of everything that is not the adapter's."""
    state = {n.replace(".base.", "."): t for n, t in of.module.state_dict().items() if ".loras." not in n}
    return {
        n: hashlib.sha256(t.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        for n, t in state.items()
    }


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["float32", "nf4", "int8"])
def test_what_was_not_trained_changes_no_bit(base: str, kind: str) -> None:
    of = trainee() if base == "float32" else kept_as(base)
    with torch.enable_grad():  # few bits are computed exactly where something is trained
        plain = logits(of).detach()
        assert torch.equal(logits(adapt(of, Told(rank=2, kind=kind), seed=0)).detach(), plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["float32", "nf4", "int8"])
def test_all_of_the_adapter_learns_and_nothing_else_moves(base: str, kind: str, tmp_path: Path) -> None:
    of = trainee() if base == "float32" else kept_as(base)
    before, plain = frozen(of), logits(of).detach()
    of = adapt(of, Told(rank=2, kind=kind), seed=0)  # type: ignore[arg-type]
    began = {name: p.detach().clone() for name, p in of.trained().items()}
    assert len(began) == 2 * 7 * (3 if kind == "dora" else 2)
    trained(tmp_path, of)
    assert frozen(of) == before
    assert not [name for name, p in of.trained().items() if torch.equal(p, began[name])]
    assert (logits(of) - plain).abs().max() > 1e-2
    detach(of.decoder)
    assert torch.equal(logits(of).detach(), plain)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_unmerged_and_what_is_published_is_what_was_trained(kind: str, tmp_path: Path) -> None:
    with torch.enable_grad():
        of = trained(tmp_path / "run", adapt(trainee(), Told(rank=2, kind=kind), seed=0))  # type: ignore[arg-type]
    expected = logits(of)
    of.publish(tmp_path / "adapter", {"command": "test"})
    folder = AdapterDir.open(tmp_path / "adapter")
    assert (folder.dora, folder.config["use_rslora"]) == (kind == "dora", kind == "rslora")
    fresh = trainee().decoder
    adapter = read_adapter(fresh.spec, folder)
    attach(fresh, adapter)
    assert torch.equal(logits(fresh), expected)
    detach(fresh)
    merge(fresh, adapter)
    torch.testing.assert_close(logits(fresh), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "divisor"), [("lora", 9.0), ("rslora", 3.0)])
def test_alpha_over_rank_is_what_counts(kind: str, divisor: float) -> None:
    x = torch.randn(5, 16)
    for alpha in (3.0, 12.0):
        of = adapt(trainee(), Told(rank=9, alpha=alpha, kind=kind, targets=("down_proj",)), seed=0)  # type: ignore[arg-type]
        module = of.decoder.get_submodule("layers.0.mlp.down")
        assert isinstance(module, Adapted)
        (lora,) = module.loras
        assert isinstance(lora, Lora)
        lora.b.normal_()
        x = torch.randn(5, 24)
        torch.testing.assert_close(module(x) - module.base(x), alpha / divisor * (x @ lora.a.T @ lora.b.T))


def recomputed(of: Trainee, reentrant: bool) -> Trainee:
    for block in of.decoder.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=reentrant)
    return of


def test_layers_computed_again_learn_the_same(tmp_path: Path) -> None:
    made = [adapt(trainee(), Told(rank=2, kind="dora"), seed=0) for _ in range(2)]
    recomputed(made[1], reentrant=False)
    for number, of in enumerate(made):
        trained(tmp_path / str(number), of)
    for name, p in made[0].trained().items():
        torch.testing.assert_close(made[1].trained()[name], p)


def test_a_run_stops_if_no_gradient_reaches_what_it_trains(tmp_path: Path) -> None:
    """Reentrant checkpoints drop the gradients of parameters where the input needs none, as the frozen embedding's does."""
    of = recomputed(trainee(), reentrant=True)
    of.module.requires_grad_(False)
    attach_at = adapt(of, Told(rank=2, targets=("*.layers.0.*",)), seed=0)
    of.decoder.norm.requires_grad_(True)
    with pytest.raises(MynaError, match=r"layers\.0.* nor 13 others of the 15 tensors"):
        loop(tmp_path / "run", told(), attach_at).train()
    assert not (tmp_path / "run/log.jsonl").exists()


def test_a_gradient_that_stays_zero_stops_a_run_after_three_steps(tmp_path: Path) -> None:
    of = adapt(trainee(), Told(rank=2), seed=0)
    module = of.decoder.get_submodule("layers.1.mlp.down")
    module.register_forward_hook(lambda module, inputs, y: y * 0)
    (tmp_path / "run").mkdir()
    with pytest.raises(MynaError, match=r"no gradient reaches layers\.1\.mlp"):
        loop(tmp_path / "run", told(8), of).train()
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_an_adapter(kind: str, tmp_path: Path) -> None:
    first = trained(
        tmp_path / "one", adapt(trainee(), Told(rank=2, alpha=5, kind=kind, targets=("q_proj", "down_proj")), 0)
    )  # type: ignore[arg-type]
    expected = logits(first).detach()
    first.publish(tmp_path / "adapter", {})
    of = adapt(trainee(), Told(start=str(tmp_path / "adapter"), dropout=0.25), seed=1)
    assert {lora.dropout for m in of.decoder.modules() if isinstance(m, Adapted) for lora in m.loras} == {0.25}  # type: ignore[misc]
    of.module.eval()
    assert torch.equal(logits(of).detach(), expected)
    reference = Reference(of)
    batch = Tensors.of(collate([[examples(1)[0]]], CONTEXT), torch.device("cpu"))
    began = reference.log_probs(batch)
    trained(tmp_path / "two", of)
    assert torch.equal(reference.log_probs(batch), began)
    assert not torch.equal(Reference(of).log_probs(batch), began)
    of.publish(tmp_path / "adapter2", {})
    folders = [AdapterDir.open(tmp_path / name) for name in ("adapter", "adapter2")]
    assert folders[0].modules.keys() == folders[1].modules.keys()
    assert [next(iter(f.modules.values())).scale for f in folders] == [5 / (2**0.5 if kind == "rslora" else 2)] * 2


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (("all",), 14),
        (("all-linear",), 14),
        (("q_proj", "v_proj"), 4),
        (("self_attn.q_proj",), 2),
        (("model.layers.1.mlp.up_proj",), 1),
        (("model.layers.1.*",), 7),
        (("*.mlp.*", "o_proj"), 8),
        (("q_proj", "*q_proj"), 2),
    ],
)
def test_targets_are_names_their_ends_or_patterns(targets: tuple[str, ...], count: int) -> None:
    assert len(choose(spec(), targets)) == count


@pytest.mark.parametrize("target", ["proj", "lm_head", "embed_tokens", "model.layers.2.*", "(q|v)_proj", "Q_proj", ""])
def test_a_target_that_means_nothing_is_refused(target: str) -> None:
    with pytest.raises(DataError, match=r"means nothing.*down_proj.*model\.layers\.\*\.self_attn\.q_proj"):
        choose(spec(), ("q_proj", target))


def test_experts_are_refused_by_name() -> None:
    mixed = spec(family="qwen2_moe", moe=MoE(experts=4, top_k=2, hidden=8, norm_topk=True))
    assert len(choose(mixed, ("all",))) == 8
    for target in ("gate_proj", "*_proj", "mlp.gate"):
        with pytest.raises(DataError, match=r"means model\.layers\.0\.mlp\..*of a mixture of experts"):
            choose(mixed, (target,))


def test_several_adapters_each_leave_the_model_as_it_was(tmp_path: Path) -> None:
    decoder, said = trainee().decoder, []
    for number, kind in enumerate(KINDS):
        of = trained(tmp_path / kind, adapt(trainee(), Told(rank=2, kind=kind), seed=number))  # type: ignore[arg-type]
        of.publish(tmp_path / f"{kind}-adapter", {})
        said.append(logits(of).detach())
    plain = logits(decoder)
    for _ in range(2):
        for kind, expected in zip(KINDS, said, strict=True):
            attach(decoder, read_adapter(decoder.spec, AdapterDir.open(tmp_path / f"{kind}-adapter")))
            torch.testing.assert_close(logits(decoder), expected)
            detach(decoder)
            assert torch.equal(logits(decoder), plain)


def test_a_tokenizer_that_grew_is_refused() -> None:
    check_vocabulary(90, 100, "padded")
    with pytest.raises(DataError, match=r"knows 101 tokens, and its embedding has 100 rows.*resize_token_embeddings"):
        check_vocabulary(101, 100, "grown")
