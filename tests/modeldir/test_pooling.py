"""What sentence-transformers' files say of a model is what we do, or an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from encoder_cases import write_encoder
from myna.modeldir import ModelDir, Pooling, read_pooling
from myna.records import ModelDirError


def read(at: Path, **options: Any) -> Pooling:
    return read_pooling(ModelDir.open(at), **{"causal": False, **options})


@pytest.mark.parametrize(("mode", "how"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")])
def test_the_pooling_step_decides(tmp_path: Path, mode: str, how: str) -> None:
    write_encoder(tmp_path, pooling=mode)
    assert read(tmp_path).how == how
    assert read(tmp_path, how="last").how == "last"


def test_without_files_it_is_the_custom_of_the_kind(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    assert read(tmp_path) == Pooling("mean")
    assert read(tmp_path, causal=True) == Pooling("last")


def test_lengths_prompts_and_sizes_are_read(tmp_path: Path) -> None:
    write_encoder(
        tmp_path,
        pooling="cls_token",
        sentence_bert_config={"max_seq_length": 17, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": "document",
        },
        config={"matryoshka_dimensions": [8, 16]},
    )
    assert read(tmp_path) == Pooling("cls", 17, True, {"query": "query: ", "document": ""}, "document", (8, 16), False)
    write_encoder(tmp_path / "other", config={"is_matryoshka": True})
    assert read(tmp_path / "other").any_dimension


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"sentence_bert_config": {"max_seq_length": 0}}, "max_seq_length is '0'"),
        ({"config_sentence_transformers": {"prompts": ["a"]}}, "prompts should be an object of texts"),
        ({"config_sentence_transformers": {"default_prompt_name": "x"}}, "'x', which is none of its prompts"),
        ({"config": {"matryoshka_dimensions": [0]}}, "matryoshka_dimensions should be a list of sizes"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path: Path, files: dict[str, Any], match: str) -> None:
    write_encoder(tmp_path, pooling="mean_tokens", **files)
    with pytest.raises(ModelDirError, match=match):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling by pooling_mode_max_tokens is not"),
        ("1_Pooling/config.json", {}, "pooling by nothing is not supported"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling_mode_mean_tokens, pooling_mode_cls_token is not",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "include_prompt": False},
            "include_prompt is false",
        ),
        ("modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}], "type 'Dense' is not"),
        ("modules.json", [{"type": "x.Pooling", "path": "../../etc"}], "is no folder of a Pooling step"),
        ("modules.json", {"type": "x.Pooling"}, "should be a list of objects"),
    ],
)
def test_what_we_would_compute_otherwise_is_refused(tmp_path: Path, file: str, content: object, match: str) -> None:
    write_encoder(tmp_path, pooling="mean_tokens")
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ModelDirError, match=match):
        read(tmp_path)
