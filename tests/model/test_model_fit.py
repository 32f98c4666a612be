"""What `estimate` says before loading is what loading and answering take."""

import subprocess
import sys
from pathlib import Path

import pytest

from myna.engine.blocks import BLOCK
from myna.engine.pages import Pages
from myna.kernels import library
from myna.model import Decoder, Spec, estimate, load_model
from myna.model.config import Config
from myna.model.families import read_spec
from myna.model.fit import weight_bytes
from myna.model.load import MAKE, TABLES
from myna.modeldir import ModelDir
from myna.records import ModelDirError

LLAMA = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 97}
CONFIGS = {
    "llama": LLAMA,
    "tied": LLAMA | {"tie_word_embeddings": True, "attention_bias": True},
    "qwen2_moe": LLAMA
    | {"model_type": "qwen2_moe", "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 40},
    "gemma3": LLAMA | {"model_type": "gemma3_text", "head_dim": 16},
    "gpt2": GPT2,
}


def spec_of(config: dict) -> Spec:
    return read_spec(Config(config))


@pytest.mark.parametrize("precision", MAKE)
@pytest.mark.parametrize("config", CONFIGS)
def test_weight_bytes_are_exactly_the_decoders(config: str, precision: str) -> None:
    spec = spec_of(CONFIGS[config])
    decoder = Decoder(spec, MAKE[precision], 32, table=TABLES.get(precision))
    held = {t.data_ptr(): t.nbytes for t in [*decoder.parameters(), *decoder.buffers()]}
    assert weight_bytes(spec, precision, 32) == sum(held.values())


@pytest.mark.parametrize("precision", ["auto", "int8", "int4"])
def test_the_estimate_of_a_real_files_weights_is_exact(smollm2: Path, precision: str) -> None:
    directory = ModelDir.open(smollm2)
    decoder = load_model(directory, precision)
    held = {t.data_ptr(): t.nbytes for t in [*decoder.parameters(), *decoder.buffers()]}
    assert estimate(directory, precision).weights == sum(held.values())


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_counted_from_the_spec_alone(config: str) -> None:
    spec = spec_of(CONFIGS[config])
    assert spec.parameters() == sum(p.numel() for p in Decoder(spec).parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_the_spec_lists_exactly_the_decoders_tensors(config: str) -> None:
    spec = spec_of(CONFIGS[config])
    built = {name: tuple(p.shape) for name, p in Decoder(spec).named_parameters()}
    assert {path: slot.shape for path, slot in spec.slots()} == built


# Everything a chat needs in one process: tokenizer, weights, a full pool of keys and values, a prefill and some decoding.
# Packing them, as the first start does and one that cannot keep them; or mapped from disk, as every later one.
PEAK = """
import sys, torch
from dataclasses import replace
from myna.chat import Chat
from myna.model import Cache, load_model
from myna.modeldir import ModelDir, Weights
path, kv_tokens, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
chat = Chat.load(path)
directory = ModelDir.open(path)
if how == "packing":
    directory = replace(directory, weights=Weights(directory.weights))
decoder = load_model(directory, max_len=4096)
cache = Cache(decoder.spec, 1, kv_tokens, getattr(torch, decoder.kv_format.kept))
cache.keys.fill_(0), cache.values.fill_(0)
with torch.inference_mode():
    hidden = decoder(torch.arange(512)[None], torch.arange(512)[None], cache)
    for at in range(512, 520):
        ids = decoder.logits(hidden[:, -1:]).argmax(-1)
        hidden = decoder(ids, torch.tensor([[at]]), cache)
# Not ru_maxrss: across fork and exec it keeps the peak of the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def peak_is_as_said(path: Path, kv_tokens: int, how: str) -> None:
    if how == "mapping":
        load_model(ModelDir.open(path), max_len=4096)
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux says a process's own peak")
    said = estimate(ModelDir.open(path), kv_tokens=kv_tokens, max_len=4096)
    run = [sys.executable, "-c", PEAK, str(path), str(kv_tokens), how]
    taken = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    print(f"{path.name}, {how}: said {said.total >> 20} MiB, took {taken >> 20} MiB")
    assert abs(said.total - taken) < 0.15 * taken, said


@pytest.mark.parametrize("how", ["packing", "mapping"])
def test_peak_memory_of_the_small_model_is_as_said(smollm2: Path, how: str) -> None:
    peak_is_as_said(smollm2, 4096, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["packing", "mapping"])
def test_peak_memory_of_the_default_model_is_as_said(qwen_coder: Path, how: str) -> None:
    peak_is_as_said(qwen_coder, 4096, how)


def test_a_quantized_file_keeps_its_own_bits_unless_asked_otherwise(smollm2: Path) -> None:
    """Its 4-bit blocks stay 4 bits where the native kernels are; torch's own know int8."""
    directory = ModelDir.open(smollm2)
    assert estimate(directory).precision == ("mixed" if library() else "int8")
    assert library() is None or estimate(directory).weights < 0.75 * estimate(directory, "int8").weights
    assert estimate(directory, "float32").weights > 3 * estimate(directory).weights


def test_int8_keys_and_values_take_half_and_are_counted_so(smollm2: Path) -> None:
    directory = ModelDir.open(smollm2)
    usual, small = (load_model(directory, "int8", 64, kv) for kv in ("auto", "int8"))
    for decoder, kv in ((usual, "auto"), (small, "int8")):
        pages = Pages(decoder.spec, 8, decoder.kv_format)
        said = estimate(directory, "int8", kv=kv, kv_tokens=8 * BLOCK)
        assert said.kv == pages.keys.nbytes + pages.values.nbytes == 8 * BLOCK * decoder.kv_bytes_per_token
    assert small.kv_bytes_per_token / usual.kv_bytes_per_token == 0.5 + 1 / 32


@pytest.mark.parametrize(
    ("kv", "precision", "words"), [("int4", "auto", "kv 'int4' is not known"), ("int8", "reference", "leave out kv")]
)
def test_a_kv_that_cannot_be_is_refused(smollm2: Path, kv: str, precision: str, words: str) -> None:
    for ask in (lambda d: load_model(d, precision, 64, kv), lambda d: estimate(d, precision, kv=kv)):
        with pytest.raises(ModelDirError, match=words):
            ask(ModelDir.open(smollm2))


def test_a_model_and_the_one_that_drafts_for_it_are_counted_together_and_the_runtime_once(smollm2: Path) -> None:
    directory = ModelDir.open(smollm2)
    one, other = estimate(directory, "int8", kv_tokens=100), estimate(directory, "int4", kv_tokens=100)
    both = one.beside(other)
    assert both.weights == one.weights + other.weights
    assert both.kv == 100 * both.kv_per_token == one.kv + other.kv
    assert both.total == one.total + other.total - other.runtime
    assert both.precision == "int8"
