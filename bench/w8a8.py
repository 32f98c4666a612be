"""Writes a model directory's weights as vLLM's W8A8: int8 with a scale a row, inputs rounded to int8 a token at a time.

    python bench/w8a8.py MODEL DIRECTORY

The format is compressed-tensors' "int-quantized". As usual for W8A8, embedding, head and norms stay bfloat16.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from myna.model.read import chunks, read_rows
from myna.modeldir import ModelDir, Stored, find

SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True,
            },
        }
    },
}  # fmt: skip


def main(model: str, out: Path) -> None:
    directory = ModelDir.open(find(model))
    tensors: dict[str, torch.Tensor] = {}
    for name, stored in directory.weights.items():
        values = read(stored)
        if name.endswith("_proj.weight"):
            scale = values.abs().amax(1, keepdim=True).clamp(min=1e-10) / 127
            tensors[name] = (values / scale).round().clamp(-127, 127).to(torch.int8)
            tensors[name.removesuffix("weight") + "weight_scale"] = scale.bfloat16()
        else:
            tensors[name] = values.bfloat16()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = directory.config | {"torch_dtype": "bfloat16", "quantization_config": SCHEME}
    (out / "config.json").write_text(json.dumps(config, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory.path / name, out / name)


def read(stored: Stored) -> torch.Tensor:
    """All of a tensor, float32, in Hugging Face's shape."""
    if len(stored.shape) < 2:
        return read_rows(stored, slice(0, 1))
    values = torch.cat([read_rows(stored, rows) for rows in chunks(stored)])
    return values.T.contiguous() if stored.adjust == "transpose" else values


main(sys.argv[1], Path(sys.argv[2]))
