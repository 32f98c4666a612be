"""Adapters of random, non-zero numbers, written by PEFT and by hand, for the tests of several rooms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import save_file

EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def peft_adapter(
    base: torch.nn.Module, at: Path, targets: Sequence[str] | str = EVERY, seed: int = 0, **fields: Any
) -> PeftModel:
    """The base model with an adapter, as PEFT computes it; its folder is written to `at`."""
    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": targets if isinstance(targets, str) else list(targets)} | fields
    )
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(at)
    return model


def write_folder(at: Path, modules: Mapping[str, tuple[np.ndarray, np.ndarray]], **config: Any) -> Path:
    """An adapter's folder: A and B of each module. `config` over what is usual."""
    at.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.astype(np.float32)
    save_file(tensors, at / "adapter_model.safetensors")
    rank = len(next(iter(modules.values()))[0]) if modules else 4
    usual = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": sorted(modules)}
    (at / "adapter_config.json").write_text(json.dumps(usual | config))
    return at


def random_modules(
    shapes: Mapping[str, tuple[int, int]], rank: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B for modules of [rows, columns], large enough to change answers."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal((rank, columns)) / columns**0.5, random.standard_normal((rows, rank)) / rank**0.5)
        for name, (rows, columns) in shapes.items()
    }
