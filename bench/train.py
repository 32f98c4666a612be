"""Training tokens a second beside a loop over transformers and a plain eager one, interleaved in one process.

    python bench/train.py [--sizes 1M 10M 135M] [--rounds 5] [--rows 16] [--context 256] [--precision float32 bfloat16]

All train one Llama of each size (transformers' own code, its weights in ours) with AdamW, clipping and the same rows of whole
sequences. `plain` is what one writes by hand: nn.Linear, SDPA, the logits of the whole batch. Medians over the rounds, and of
each round's ratios to ours. MFU is of the best product of two large matrices measured in the same run.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from myna.data import Listed, Tokenized
from myna.model import Decoder
from myna.model.config import Config as ModelConfig
from myna.model.families import read_spec
from myna.train.config import Config, Data, Model, Optim, Run
from myna.train.loop import Loop
from myna.train.next_token import next_token
from myna.train.offline import offline
from myna.train.parallel import ALONE
from myna.train.rundir import RunDir
from myna.train.trainee import Trainee, initialize

SIZES = {
    "1M": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 384, "vocab_size": 2048},
    "10M": {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 864, "vocab_size": 8192},
    "135M": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152},
}  # fmt: skip
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1M", "10M"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    args = parser.parse_args()
    for size in args.sizes:
        for precision in args.precision:
            compare(size, precision, args.rows, args.context, args.rounds)


def compare(size: str, precision: str, rows: int, context: int, rounds: int) -> None:
    fields = SIZES[size] | {"model_type": "llama", "max_position_embeddings": context, "tie_word_embeddings": True,
                            "rms_norm_eps": 1e-6, "rope_theta": 10_000.0}  # fmt: skip
    ids = np.random.default_rng(0).integers(0, int(fields["vocab_size"]), (rows, context))
    made = {
        "myna": ours(fields, precision, ids),
        "transformers": theirs(fields, precision, ids),
        "plain": plain(fields, precision, ids),
    }
    parameters = sum(p.numel() for p in Decoder(read_spec(ModelConfig(fields))).parameters())
    found: dict[str, list[float]] = {name: [] for name in made}
    peaks = []
    for step in made.values():
        step()
    for _ in range(rounds):
        for name, step in made.items():
            started = time.perf_counter()
            step()
            found[name].append(rows * context / (time.perf_counter() - started))
        peaks.append(peak(precision))
    flops = 6 * parameters + 12 * int(fields["num_hidden_layers"]) * int(fields["hidden_size"]) * context // 2
    best = statistics.median(peaks)
    print(
        f"\n{size} ({parameters:,} parameters), {precision}, {rows} rows of {context}; a large product reaches {best / 1e9:.0f} GFLOP/s"
    )
    for name, speeds in found.items():
        ratio = statistics.median(mine / other for mine, other in zip(found["myna"], speeds, strict=True))
        speed = statistics.median(speeds)
        print(
            f"  {name:<14} {speed:>9,.0f} tokens/s   MFU {speed * flops / best:>4.0%}   myna is {ratio:.2f} times as fast"
        )
    del made
    gc.collect()


def ours(fields: dict[str, object], precision: str, ids: np.ndarray) -> Step:
    decoder = Decoder(read_spec(ModelConfig(dict(fields))))
    initialize(decoder, 0)
    trainee = Trainee(decoder, decoder, None, "bench", lambda place, lineage: place)  # type: ignore[arg-type]
    rows, context = ids.shape
    config = Config(
        method="pretrain",
        data=Data(context=context),
        model=Model(precision=precision),  # type: ignore[arg-type]
        optim=Optim(lr=1e-4, schedule="constant"),
        run=Run(steps=1_000_000, rows=rows),
    )
    examples = Listed([(Tokenized(row, np.ones(context, np.float32)),) for row in ids])
    method = offline(config, examples, None, lambda batch: next_token(trainee, torch.ones(1), batch))
    return Loop(trainee, method, config, RunDir(Path(tempfile.mkdtemp())), ALONE)._step


def theirs(fields: dict[str, object], precision: str, ids: np.ndarray) -> Step:
    config = transformers.AutoConfig.for_model(**fields)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", dtype=torch.float32
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    batch = torch.from_numpy(ids)
    return stepping(model, optimizer, precision, lambda: model(input_ids=batch, labels=batch).loss)


def plain(fields: dict[str, object], precision: str, ids: np.ndarray) -> Step:
    model = Plain(fields)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    batch = torch.from_numpy(ids)
    return stepping(model, optimizer, precision, lambda: model(batch))


def stepping(model: nn.Module, optimizer: torch.optim.Optimizer, precision: str, loss: Callable[[], Tensor]) -> Step:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value.item()

    return step


class Plain(nn.Module):
    """A Llama as one writes it in an afternoon."""

    def __init__(self, fields: dict[str, object]):
        super().__init__()
        width, layers, vocab = (int(fields[k]) for k in ("hidden_size", "num_hidden_layers", "vocab_size"))  # type: ignore[call-overload]
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(PlainBlock(fields) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class PlainBlock(nn.Module):
    def __init__(self, fields: dict[str, object]):
        super().__init__()
        width, hidden, heads, kv = (
            int(fields[k]) for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")  # type: ignore[call-overload]
        )  # fmt: skip
        self.heads, self.kv, self.dim = heads, kv, width // heads
        self.q, self.k, self.v = (nn.Linear(width, n * self.dim, bias=False) for n in (heads, kv, kv))
        self.o = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (n, self.dim)).transpose(1, 2) for f, n in ((self.q, self.heads), (self.k, self.kv), (self.v, self.kv)))  # fmt: skip
        q, k = turned(q), turned(k)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 10_000 ** (-torch.arange(half) / half)
    a, b = x.chunk(2, -1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)


def peak(precision: str) -> float:
    """FLOP/s of a large product, the best of three."""
    a, b = (torch.randn(1024, 1024, dtype=getattr(torch, precision)) for _ in range(2))
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        best = max(best, 4 * 2 * 1024**3 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
