"""Filling in the middle: the prompt is the control tokens of the model's own page, and typed ones stay text."""

from pathlib import Path

import pytest

from myna.chat import Chat
from myna.chat.infill import LAYOUTS, SUFFIX_FIRST, find_infill
from myna.records import Document, RequestError


@pytest.mark.parametrize("names", LAYOUTS)
def test_every_layout_is_found_by_its_tokens_and_by_all_of_them_only(names: tuple[str, str, str]) -> None:
    special = {name: id for id, name in enumerate(names)}
    found = find_infill(special)
    assert found is not None
    assert (found.before, found.between, found.after, found.suffix_first) == (0, 1, 2, False)
    assert find_infill({name: id for name, id in special.items() if id != 2}) is None


def test_codestral_puts_the_suffix_first() -> None:
    found = find_infill({name: id for id, name in enumerate(SUFFIX_FIRST)})
    assert found is not None
    assert (found.before, found.between, found.after, found.suffix_first) == (0, 1, None, True)


def test_a_suffix_is_refused_where_the_tokenizer_cannot(smollm2: Path) -> None:
    chat = Chat.load(smollm2)
    chat.infill = None
    with pytest.raises(RequestError) as refused:
        chat.prompt(Document("a", suffix="b"))
    assert (refused.value.param, refused.value.code) == ("suffix", "unsupported_parameter")


def test_qwen_coder_is_asked_as_its_page_says(qwen_coder: Path) -> None:
    chat = Chat.load(qwen_coder)
    prefix, suffix = "def add(a, b):\n    return <|fim_suffix|>", "\n\nprint(add(1, 2))\n"
    rendered = chat.prompt(Document(prefix, suffix=suffix))
    special = chat.tokenizer.special
    at = [rendered.ids.index(special[name]) for name in LAYOUTS[0]]
    assert at == [0, at[1], len(rendered.ids) - 1]
    assert rendered.ids.count(special["<|fim_suffix|>"]) == 1
    assert chat.tokenizer.decode(rendered.ids[1 : at[1]]) == prefix
    assert chat.tokenizer.decode(rendered.ids[at[1] + 1 : -1]) == suffix
    assert special["<|file_sep|>"] in rendered.stop_ids
