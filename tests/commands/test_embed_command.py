"""myna embed: texts from anywhere, vectors to anywhere, whole or not at all."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from encoder_cases import write_encoder
from myna.commands import embed
from myna.records import DataError, MynaError

TEXTS = ["Hello world", "你好，世界！", "the fox"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    write_encoder(tmp_path / "tiny", pooling="mean_tokens")
    return str(tmp_path / "tiny")


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_texts_files_and_standard_input_give_the_same_vectors(
    model: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "AT_ONCE", 2)  # three texts are two batches
    embed.run(*TEXTS, model=model)
    said = rows(capsysbinary.readouterr().out.decode())
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS))
    embed.run(model=model, file=tmp_path / "in.jsonl", out=tmp_path / "out.npy")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS) + "\n\n"))
    embed.run(model=model, out=tmp_path / "out.jsonl")
    assert [row["text"] for row in said] == TEXTS
    array = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (3, 48))
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in said]), array)
    assert rows((tmp_path / "out.jsonl").read_text()) == said


def test_a_text_that_is_too_long_is_numbered_and_nothing_is_left(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "AT_ONCE", 2)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in [*TEXTS, "fox " * 99]))
    for out in ("out.jsonl", "out.npy"):
        with pytest.raises(DataError, match="text 4 has 99 tokens"):
            embed.run(model=model, file=tmp_path / "in.jsonl", out=tmp_path / out)
        assert not (tmp_path / out).exists()
    embed.run(model=model, file=tmp_path / "in.jsonl", out=tmp_path / "out.npy", truncate=True)
    assert np.load(tmp_path / "out.npy").shape == (4, 48)


def test_what_cannot_be_embedded_is_said(model: str, tmp_path: Path) -> None:
    with pytest.raises(MynaError, match="not both"):
        embed.run("a", model=model, file=tmp_path / "in.jsonl")
    write_encoder(tmp_path / "cross", "bert that scores")
    with pytest.raises(MynaError, match="scores pairs of texts"):
        embed.run("a", model=str(tmp_path / "cross"))
    with pytest.raises(MynaError, match="no prompt"):
        embed.run("a", model=model, prompt="query")
    with pytest.raises(DataError, match="text 2 is empty"):
        embed.run("a", "", model=model)
