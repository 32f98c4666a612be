"""A model is loaded for what it is, and one that chats embeds and judges too."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from encoder_cases import write_encoder, write_tokenizer
from family_cases import oracle
from myna.provider import local
from myna.provider.either import load_either, memory_of_either
from myna.provider.local import Loading, Local
from myna.provider.local_embed import CrossEncoder, LocalEmbedder, load_embedder
from myna.records import ModelDirError


@pytest.mark.parametrize(("case", "kind"), [("bert", LocalEmbedder), ("bert that scores", CrossEncoder)])
def test_an_encoder_is_loaded_as_one(tmp_path: Path, case: str, kind: type) -> None:
    write_encoder(tmp_path, case)
    where = str(tmp_path) + "/"
    for precision, found in (("int4", "float32"), ("bfloat16", "bfloat16")):
        model = load_either(where, Loading(precision=precision, max_len=100_000), name="me")  # type: ignore[arg-type]
        assert isinstance(model, kind)
        assert (model.name, model.details["precision"]) == ("me", found)
        model.close()
    assert memory_of_either(where) > 1000


def test_an_encoder_asked_to_chat_says_what_it_is_for(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    for load in (local.load, local.memory_needed):
        with pytest.raises(ModelDirError, match="is an encoder"):
            load(str(tmp_path) + "/")


def test_a_model_that_chats_embeds_as_its_decoder_does(tmp_path: Path) -> None:
    oracle("llama", tmp_path)
    write_tokenizer(tmp_path)
    where, how = str(tmp_path) + "/", Loading(precision="float32", kv_gb=0.001)
    model, alone = load_either(where, how), load_embedder(where)
    assert isinstance(model, Local)
    assert isinstance(alone, LocalEmbedder)
    ids = [(5, 6, 7), (9,), (5, 6, 8, 20)]
    try:

        async def together() -> list[np.ndarray]:
            return [found.rows for found in await asyncio.gather(*(model.embed([one]) for one in ids))]

        rows = np.concatenate(asyncio.run(together()))
        np.testing.assert_allclose(rows, asyncio.run(alone.embed(ids)).rows, rtol=1e-4, atol=1e-5)
        assert not np.allclose(rows[0], rows[2])
    finally:
        model.close()
        alone.close()
    assert not model.ready
