"""GGUF files of every architecture we read, against the model they were written from and against transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from modeldir_tiny import ARCHITECTURES, hf_tensors, tiny_model, write_gguf

from myna.modeldir import ModelDir, Stored
from myna.modeldir.from_gguf import build_from_gguf
from myna.modeldir.gguf import GGUF
from myna.modeldir.gguf_config import config_from_gguf
from myna.modeldir.gguf_names import stored_from_gguf
from myna.records import ModelDirError


def numbers(stored: Stored) -> np.ndarray:
    """An F32 tensor decoded as the model room would."""
    assert stored.kind == "F32"
    values = stored.data.reshape(-1).view(np.float32)
    if stored.adjust == "transpose":
        return values.reshape(tuple(reversed(stored.shape))).T
    return values.reshape(stored.shape) - (1 if stored.adjust == "minus_one" else 0)


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return request.param


def test_gguf_gives_back_every_tensor_under_its_name(arch: str, tmp_path: Path) -> None:
    model = tiny_model(arch)
    original = hf_tensors(model, tmp_path)
    write_gguf(tmp_path / "model.gguf", arch, model, original)
    gguf = GGUF(tmp_path / "model.gguf")
    ours = {stored.name: numbers(stored) for stored in stored_from_gguf(gguf, config_from_gguf(gguf))}
    assert set(ours) == set(original)
    for name, array in original.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-6, err_msg=name)


def test_transformers_computes_the_same_with_the_rebuilt_config(arch: str, tmp_path: Path) -> None:
    model = tiny_model(arch)
    write_gguf(tmp_path / "model.gguf", arch, model, hf_tensors(model, tmp_path / "hf"))
    build_from_gguf(tmp_path)
    opened = ModelDir.open(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    again.load_state_dict(model.state_dict())
    ids = torch.arange(3, 43)[None]  # longer than the sliding windows
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert opened.config["vocab_size"] == 96


# Not qwen3 and gpt2, for whose tiny sizes transformers' loader takes defaults, nor experts, which it fuses.
@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma2", "gemma3", "phi3"])
def test_transformers_own_gguf_loader_agrees(arch: str, tmp_path: Path) -> None:
    model = tiny_model(arch)
    write_gguf(tmp_path / "model.gguf", arch, model, hf_tensors(model, tmp_path / "hf"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    gguf = GGUF(tmp_path / "model.gguf")
    state = theirs.state_dict()
    for stored in stored_from_gguf(gguf, config_from_gguf(gguf)):
        np.testing.assert_allclose(numbers(stored), state[stored.name].numpy(), atol=1e-6, err_msg=stored.name)


def test_unknown_architecture_names_the_closest(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    write_gguf(tmp_path / "model.gguf", "qwen2", model, hf_tensors(model, tmp_path))
    (tmp_path / "odd.gguf").write_bytes((tmp_path / "model.gguf").read_bytes().replace(b"qwen2", b"qwenX"))
    with pytest.raises(ModelDirError, match=r"'qwenX' is not supported.*llama.*closest is qwen"):
        config_from_gguf(GGUF(tmp_path / "odd.gguf"))
