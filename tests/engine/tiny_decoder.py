"""A decoder small enough to build in a test, whose logits are far apart, and the slow truth about it."""

from collections.abc import Sequence

import torch

from myna.model import AttentionRule, Causal, Decoder, Norm, Rope, Spec

VOCAB = 211


def spec_of(kind: str, **changes: int) -> Spec:
    rules = (AttentionRule(0.25), AttentionRule(0.25))
    if kind == "windowed":  # Gemma 2's kind: alternating windows and soft caps
        rules = (AttentionRule(0.25, window=9, softcap=20.0), AttentionRule(0.25, softcap=20.0))
    sizes = {"vocab": VOCAB, "width": 64, "hidden": 96, "max_len": 256} | changes
    return Spec(
        family="llama", layers=2, heads=4, kv_heads=2, head_dim=16, norm=Norm(), rules=rules, rope=Rope(dim=16), tied=True,
        **sizes,
    )  # fmt: skip


def random_decoder(spec: Spec, seed: int = 7) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(spec).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 1.0))
    return decoder


@torch.inference_mode()
def naive(model: Decoder, prompt: Sequence[int], max_tokens: int = 12) -> list[int]:
    """Greedy by a plain forward pass over everything, every time."""
    ids = list(prompt)
    for _ in range(max_tokens):
        hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None], Causal())
        ids.append(int(model.logits(hidden[0, -1]).argmax()))
    return ids[len(prompt) :]
