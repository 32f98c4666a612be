"""Chunks of logits against the whole of them: values and every gradient; and rows in which sequences do not see each other."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CONTEXT, VOCAB, examples, trainee
from torch import Tensor

from myna.data import IGNORED, Tokenized, collate
from myna.model import Causal, Decoder
from myna.train import loss
from myna.train.method import Tensors

CPU = torch.device("cpu")


def gradients(model: Decoder, of: Callable[[], Tensor]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    value = of()
    value.backward()
    return value.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(one: dict[str, Tensor], two: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=atol, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_chunks_are_the_whole(monkeypatch: pytest.MonkeyPatch, rows: int, tied: bool, softcap: float | None) -> None:
    monkeypatch.setattr(loss, "rows_at_once", lambda vocab: rows)
    model = trainee(tied=tied, softcap=softcap).decoder
    batch = Tensors.of(collate([[e] for e in (examples(9)[i] for i in range(9))], CONTEXT), CPU)

    def hidden() -> Tensor:
        return model(batch.ids, batch.positions, batch.memory)

    def plain() -> Tensor:
        losses = F.cross_entropy(model.logits(hidden()).flatten(0, 1), batch.targets.flatten(), reduction="none")
        return (losses * batch.weights.flatten()).sum()

    def summed() -> Tensor:
        return loss.cross_entropy(model, hidden(), batch.targets, batch.weights)

    def again() -> Tensor:
        return -(loss.log_probs(model, hidden(), batch.targets) * batch.weights).sum()

    value, truth = gradients(model, plain)
    for way in (summed, again):
        found, grads = gradients(model, way)
        assert found == pytest.approx(value, rel=1e-6)
        close(grads, truth)
    with torch.no_grad():
        assert summed().item() == pytest.approx(value, rel=1e-6)


def test_log_probs_of_any_function_and_temperature() -> None:
    model = trainee().decoder
    batch = Tensors.of(collate([[examples(9)[i]] for i in range(9)], CONTEXT), CPU)

    def mine() -> Tensor:
        found = loss.log_probs(model, model(batch.ids, batch.positions, batch.memory), batch.targets, 0.7)
        return torch.sigmoid(loss.sequence_sums(found, batch.docs, batch.sequences)).sum()

    def plain() -> Tensor:
        every = (model.logits(model(batch.ids, batch.positions, batch.memory)) / 0.7).log_softmax(-1)
        chosen = every.gather(-1, batch.targets.clamp_min(0)[..., None])[..., 0] * (batch.targets != IGNORED)
        return torch.sigmoid(torch.stack([chosen[batch.docs == d].sum() for d in range(batch.sequences)])).sum()

    close(gradients(model, mine)[1], gradients(model, plain)[1])


@pytest.mark.parametrize("window", [None, 4])
def test_packed_is_padded_is_one_by_one(window: int | None) -> None:
    """Loss and every gradient."""
    of = trainee()
    model = Decoder(of.decoder.spec.with_window(window) if window else of.decoder.spec)
    model.load_state_dict(of.decoder.state_dict())
    some = [examples(11, longest=8)[i] for i in range(11)]

    def summed(*rows: list[tuple[Tokenized, ...]]) -> Callable[[], Tensor]:
        batch = Tensors.of(collate(rows, CONTEXT), CPU)
        return lambda: loss.cross_entropy(
            model, model(batch.ids, batch.positions, batch.memory), batch.targets, batch.weights
        )

    def one_by_one() -> Tensor:
        total = torch.zeros(())
        for (sequence,) in some:
            ids = torch.tensor(np.array(sequence.ids))[None]
            logits = model.logits(model(ids, torch.arange(ids.shape[1])[None], Causal()))
            losses = F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
            total = total + (losses * torch.from_numpy(sequence.weights[1:])).sum()
        return total

    value, truth = gradients(model, one_by_one)
    for rows in ([some[:3], some[3:6], some[6:8], some[8:]], [[e] for e in some]):
        found, grads = gradients(model, summed(*rows))
        assert found == pytest.approx(value, rel=1e-6)
        close(grads, truth)


def test_a_sequence_never_changes_its_neighbours() -> None:
    """Exactly zero, in the same row and in others."""
    model = trainee().decoder
    one, two = (Tokenized(np.array(ids), np.ones(len(ids), np.float32)) for ids in ([1, 2, 3, 4], [5, 6, 7]))
    other = Tokenized(np.array([9, 9, 9, 9]), np.ones(4, np.float32))
    with torch.no_grad():
        found = []
        for first in (one, other):
            batch = Tensors.of(collate([[(first,), (two,)]], 8), CPU)
            found.append(model(batch.ids, batch.positions, batch.memory)[0, 4:7])
    assert torch.equal(*found)


def test_a_target_that_does_not_count_changes_nothing() -> None:
    model = trainee().decoder
    weights = np.array([1, 1, 0, 1, 0], np.float32)
    values = []
    for last in (3, 30):
        batch = Tensors.of(collate([[(Tokenized(np.array([1, 2, 5, 4, last]), weights),)]], 8), CPU)
        hidden = model(batch.ids, batch.positions, batch.memory)
        values.append(loss.cross_entropy(model, hidden, batch.targets, batch.weights).item())
    assert values[0] == values[1]


def test_rows_at_once_bound_the_logits() -> None:
    assert loss.rows_at_once(151_936) == loss.LEAST
    assert loss.rows_at_once(VOCAB) * VOCAB <= loss.CHUNK
