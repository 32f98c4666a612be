"""Loss and every gradient beside transformers with the same weights, and a hundred steps beside a loop of its own."""

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from myna.data import Tokenized, collate
from myna.model import Decoder, hf_state
from myna.model.config import Config as ModelConfig
from myna.model.families import read_spec
from myna.train.config import Optim
from myna.train.loss import cross_entropy
from myna.train.method import Tensors
from myna.train.optim import make_optimizers
from myna.train.shape import shape
from myna.train.trainee import initialize

VOCAB, CONTEXT = 67, 20
CPU = torch.device("cpu")
COMMON = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
CONFIGS = {
    "llama": COMMON | {"model_type": "llama"},
    "llama, own head": COMMON | {"model_type": "llama", "tie_word_embeddings": False},
    "qwen2": COMMON | {"model_type": "qwen2"},
    "gemma2": COMMON | {"model_type": "gemma2", "sliding_window": 8, "query_pre_attn_scalar": 8},
    "mixtral": COMMON
    | {
        "model_type": "mixtral",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "ours, depth 1": shape(1, vocab=VOCAB, context=64),
    "ours, depth 1 of experts": shape(1, vocab=VOCAB, context=64, experts=4),
}


def both(fields: dict[str, object]) -> tuple[Decoder, torch.nn.Module]:
    """Our decoder and transformers' model with the same random weights."""
    ours = Decoder(read_spec(ModelConfig(dict(fields))))
    initialize(ours, 0)
    torch.manual_seed(1)
    for p in ours.parameters():
        with torch.no_grad():
            p.add_(0.05 * torch.randn_like(p))
    config = transformers.AutoConfig.for_model(**fields)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    missing = theirs.load_state_dict(saved(theirs, hf_state(ours)), strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    theirs.tie_weights()
    return ours, theirs.train()


def saved(theirs: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers keeps the experts of a layer in two tensors; on disk they are apart."""
    wanted = theirs.state_dict()
    fused = {name: tensor for name, tensor in state.items() if name in wanted}
    for name in wanted:
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            fused[name] = torch.stack([torch.cat([find(state, stem, e, k) for k in (0, 1)]) for e in range(4)])
        elif name.endswith("experts.down_proj"):
            fused[name] = torch.stack([find(state, name.removesuffix("down_proj"), e, 2) for e in range(4)])
        elif name.endswith("mlp.gate.weight") and name not in state:
            fused[name] = state[name.replace("mlp.gate", "block_sparse_moe.gate")]
    return fused


def find(state: dict[str, Tensor], stem: str, expert: int, which: int) -> Tensor:
    for leaves in (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")):
        for at in (stem, stem.replace("mlp.", "block_sparse_moe.")):
            if (name := f"{at}{expert}.{leaves[which]}.weight") in state:
                return state[name]
    raise KeyError(stem)


def sequences() -> list[Tokenized]:
    drawn = np.random.default_rng(0)
    made = []
    for size in (5, 20, 11, 2):
        weights = (drawn.random(size) < 0.6).astype(np.float32)
        weights[-1] = 1
        made.append(Tokenized(drawn.integers(0, VOCAB, size), weights))
    return made


def labelled(sequence: Tokenized) -> tuple[Tensor, Tensor]:
    labels = np.where(sequence.weights != 0, sequence.ids, -100)
    return torch.from_numpy(sequence.ids)[None], torch.from_numpy(labels)[None]


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_are_transformers(name: str) -> None:
    ours, theirs = both(CONFIGS[name])
    some = sequences()
    units = sum(sequence.supervised for sequence in some)
    batch = Tensors.of(collate([[(some[0],), (some[2],)], [(some[1],)], [(some[3],)]], CONTEXT), CPU)
    mine = cross_entropy(ours, ours(batch.ids, batch.positions, batch.memory), batch.targets, batch.weights) / units
    mine.backward()
    total = torch.zeros(())
    for sequence in some:
        ids, labels = labelled(sequence)
        total = total + theirs(input_ids=ids, labels=labels, num_items_in_batch=units).loss
    total.backward()
    assert mine.item() == pytest.approx(total.item(), abs=1e-5)
    for parameter in ours.parameters():
        assert parameter.grad is not None
        parameter.data = parameter.grad
    wanted = dict(theirs.named_parameters())
    for key, found in saved(theirs, hf_state(ours)).items():
        if key in wanted:
            grad = wanted[key].grad
            assert grad is not None
            torch.testing.assert_close(found, grad, rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_steps_of_training_are_those_of_a_plain_loop() -> None:
    """Thirty steps of AdamW: the same losses, and no drift to one side."""
    ours, theirs = both(CONFIGS["llama"])
    config = Optim(lr=1e-3, weight_decay=0.1)
    mine = make_optimizers(ours, config)
    matrices = [p for p in theirs.parameters() if p.ndim > 1]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    their = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    apart = []
    for step in range(30):
        some = sequences()[step % 3 : step % 3 + 2]
        batch = Tensors.of(collate([[(sequence,)] for sequence in some], CONTEXT), CPU)
        units = batch.units
        loss = cross_entropy(ours, ours(batch.ids, batch.positions, batch.memory), batch.targets, batch.weights) / units
        loss.backward()
        mine[0].step()
        mine[0].zero_grad()
        total = torch.zeros(())
        for sequence in some:
            ids, labels = labelled(sequence)
            total = total + theirs(input_ids=ids, labels=labels, num_items_in_batch=units).loss
        total.backward()
        their.step()
        their.zero_grad()
        apart.append(loss.item() - total.item())
    assert max(map(abs, apart)) < 1e-3
    assert abs(float(np.mean(apart))) < 1e-4
