"""Texts in their frames: the ids and types that the tokenizers library gives one text and two."""

import json
from pathlib import Path

import pytest
from chat_tiny import CORPUS, write_model
from tokenizers import Tokenizer as Library
from tokenizers import processors

from myna.chat import Passages
from myna.chat.passages import Framed
from myna.records import ChatError

TEXTS = [*CORPUS[:4], "", "你好，世界！ two  spaces", "snow ☃ 🙂"]
FRAMES = {
    "bert template": lambda: processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 7), ("[SEP]", 8)]
    ),
    "bert": lambda: processors.BertProcessing(("[SEP]", 8), ("[CLS]", 7)),
    "roberta": lambda: processors.RobertaProcessing(("</s>", 8), ("<s>", 7), trim_offsets=False),
    "behind a byte level": lambda: processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing(single="$A <e>", pair="$A <e> $B <e>", special_tokens=[("<e>", 9)])]
    ),
    "none": lambda: None,
}  # fmt: skip


def test_a_frame_is_taken_off_where_it_is_whole() -> None:
    model = Passages(None, ((7, 0), ("A", 0), (8, 0), (9, 0)), None)  # type: ignore[arg-type]
    for framed, bare in (
        ([7, 1, 2, 8, 9], [1, 2]), ([7, 8, 9], []), ([7, 7, 8, 9, 8, 9], [7, 8, 9]),
        ([1, 2], [1, 2]), ([7, 1, 8], [7, 1, 8]), ([1, 8, 9], [1, 8, 9]), ([7, 8], [7, 8]), ([], []),
    ):  # fmt: skip
        assert [*model.bare(framed)] == bare
    opening = Passages(None, ((7, 0), ("A", 0)), None)  # type: ignore[arg-type]
    assert [*opening.bare([7, 1])] == [1]
    none = Passages(None, (("A", 0),), None)  # type: ignore[arg-type]
    assert [*none.bare([1, 2])] == [1, 2]


@pytest.fixture(params=["word_piece", "unigram_words", "byte_level"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path, request.param)


def framed(path: Path, frame: str) -> Library:
    library = Library.from_file(str(path / "tokenizer.json"))
    if (processor := FRAMES[frame]()) is not None:
        library.post_processor = processor
    library.save(str(path / "tokenizer.json"))
    return library


@pytest.mark.parametrize("frame", FRAMES)
def test_one_text_and_two_are_what_the_library_makes_of_them(model: Path, frame: str) -> None:
    library, passages = framed(model, frame), Passages.load(model)
    encode = passages.tokenizer.encode
    for first, second in zip(TEXTS, TEXTS[::-1], strict=True):
        one = library.encode(first)
        assert passages.one(encode(first)) == Framed(tuple(one.ids), tuple(one.type_ids))
        assert passages.overhead() == len(one.ids) - len(encode(first))
        if passages.pair:
            two = library.encode(first, second)
            # The library's Roberta processor says 0 of every token, as the models were trained.
            assert passages.two(encode(first), encode(second)) == Framed(tuple(two.ids), tuple(two.type_ids))
            assert passages.overhead(pair=True) == len(two.ids) - len(encode(first)) - len(encode(second))
    assert (passages.pair is None) == (frame == "none")


def test_a_typed_separator_is_text(model: Path) -> None:
    framed(model, "bert template")
    passages = Passages.load(model)
    special = passages.tokenizer.special
    controls = {id for name, id in special.items() if name not in ("[UNK]", "<unk>")}
    for typed in ("[SEP]", "</s>", "a [SEP] b", "[CLS]</s>"):
        ids = passages.one(passages.tokenizer.encode(typed)).ids
        assert (ids[0], ids[-1]) == (7, 8)
        assert not {*ids[1:-1]} & controls, typed


def test_a_frame_we_do_not_understand_is_named(model: Path) -> None:
    framed(model, "bert template")
    spec = json.loads((model / "tokenizer.json").read_text())
    del spec["post_processor"]["special_tokens"]["[SEP]"]
    (model / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ChatError, match=r"tokenizer\.json: post_processor cannot be understood: KeyError"):
        Passages.load(model)
