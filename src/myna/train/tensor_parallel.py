"""Tensor parallel: several processes compute each layer together, each some heads of its attention and some channels of its MLP
(Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053), by torch's own plans.

    qkv, gate_up, up   by rows (ColwiseParallel: y = W x, of which each process computes some numbers); no process waits
    out, down          by columns (RowwiseParallel: each process adds what its numbers give); their sums go to all

Between the two lies what heads and channels do by themselves. So a layer exchanges its activations twice on the way there and
twice back, and embedding, norms and head are computed by each process.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from myna.model import Decoder, Encoder
from myna.records import DataError
from myna.train.config import Config


def plan(block: nn.Module) -> dict[str, ParallelStyle]:
    """How each part of a layer is split. Norms of heads [B, T, H, D] are all of some heads: their gradients are summed."""
    heads = SequenceParallel(sequence_dim=2, use_local_output=True)
    styles: dict[str, ParallelStyle] = {
        "attention.qkv": ColwiseParallel(), "attention.q_norm": heads, "attention.k_norm": heads,
        "attention.out": RowwiseParallel(),
        "mlp.gate_up": ColwiseParallel(), "mlp.up": ColwiseParallel(), "mlp.down": RowwiseParallel(),
    }  # fmt: skip
    there = {name for name, part in block.named_modules() if part._parameters}
    return {name: style for name, style in styles.items() if name in there}


@torch.no_grad()
def split(model: Decoder | Encoder, mesh: DeviceMesh) -> dict[str, Tensor]:
    """Leave of each layer what this process of a one-dimensional mesh computes. Of each weight that holds several (q, k and v;
    gate and up), by its path in the model: the order in which its rows are now spread."""
    orders = {path: dealt(slot.rows, mesh.size()) for path, slot in model.spec.slots() if len(slot.rows) > 1}
    for path, order in orders.items():
        weight = model.get_parameter(path)
        weight.copy_(weight[order.to(weight.device)])
    for block in model.layers:
        trained = {name: p.requires_grad for name, p in block.named_parameters()}
        parallelize_module(block, mesh, plan(block), src_data_rank=None)
        for name, p in block.named_parameters():
            p.requires_grad_(trained[name])  # SequenceParallel would train what is frozen
    return orders


def dealt(rows: Sequence[int], size: int) -> Tensor:
    """The rows of a weight that holds several, in the order in which `size` equal bands have each its share of every one."""
    parts = [part.chunk(size) for part in torch.arange(sum(rows)).split([*rows])]
    return torch.cat([part[band] for band in range(size) for part in parts])


def check(config: Config, model: Decoder | Encoder, processes: int) -> None:
    """DataError if so many processes cannot share the model's layers as run.tensor says."""
    size, spec = config.run.tensor, model.spec
    if size == 1:
        return
    said = f"--run.tensor {size}: "
    if processes % size:
        raise DataError(f"{said}of {processes} process{'es' * (processes > 1)}, whose number it must divide")
    counts = {"heads": spec.heads, "heads of keys and values": spec.kv_heads, "channels in its MLP": spec.hidden}
    if odd := [f"{count} {name}" for name, count in counts.items() if count % size]:
        raise DataError(
            f"{said}the model has {odd[0]}, which cannot be shared out evenly. What divides it can be given"
        )
    if spec.moe:
        raise DataError(
            f"{said}layers with experts are not split; leave it out, and they are spread over all processes"
        )
    if config.lora.adapts:
        raise DataError(
            f"{said}adapters are not split; leave it out, and the frozen weights are spread over all processes"
        )
    if config.run.prompts or config.method == "grpo" or getattr(config.options, "on_policy", False):
        raise DataError(
            f"{said}answers are drawn with whole layers, for run.prompts and methods alike; leave either out"
        )
