"""A real model: our float32 logits are transformers'. What other precisions lose: tests/engine/test_quality.py."""

from pathlib import Path

import pytest
import torch
import transformers

from myna.model import Causal, Decoder, load_model
from myna.modeldir import ModelDir

ENGLISH = (
    "The history of writing traces the development of expressing language by systems of markings and how these markings "
    "were used for various purposes in different societies, thereby transforming social organization. "
)
CODE = '''def primes(n: int) -> list[int]:
    """All primes below n, by the sieve of Eratosthenes."""
    sieve = bytearray([1]) * n
    sieve[:2] = b"\\0\\0"
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, n, i)))
    return [i for i, prime in enumerate(sieve) if prime]
'''


@pytest.fixture(scope="module")
def decoder(smollm2: Path) -> Decoder:
    return load_model(ModelDir.open(smollm2), "float32", 2048)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(smollm2)


@torch.inference_mode()
def logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return decoder.logits(decoder(ids, torch.arange(ids.shape[1])[None], Causal()))


@pytest.mark.slow  # transformers takes half a minute to decode the file
@torch.inference_mode()
def test_float32_logits_of_a_gguf_are_those_of_transformers(
    decoder: Decoder, tokenizer: transformers.PreTrainedTokenizerBase, smollm2: Path
) -> None:
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    for text in (ENGLISH, CODE):
        ids = tokenizer(text, return_tensors="pt").input_ids
        torch.testing.assert_close(logits(decoder, ids), oracle(ids).logits, rtol=1e-4, atol=1e-3)
