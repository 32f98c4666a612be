"""Chunks: ranges of the text with laws."""

import random

import pytest

from myna.apps.index.chunks import SMALL, chunks
from myna.apps.index.parsed import Parsed, Section


def random_document(seed: int) -> Parsed:
    draw = random.Random(seed)
    alphabet = "ab c. d\n\n中文。句子，，！ 12"
    text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 400)))
    sections: list[Section] = []

    def nest(start: int, end: int, level: int, parent: int | None) -> None:
        at = start
        while at < end and level < 4 and draw.random() < 0.7:
            a = draw.randrange(at, end)
            b = draw.randrange(a, end) + 1
            sections.append(Section("t", level, parent, a, b))
            nest(a, b, level + 1, len(sections) - 1)
            at = b

    nest(0, len(text), 1, None)
    edges = sorted(draw.sample(range(len(text) + 1), min(6, len(text) // 2 * 2)))
    hidden = tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return Parsed(text, tuple(sections), hidden=hidden)


@pytest.mark.parametrize("seed", range(60))
def test_chunks_hold_every_visible_character_once_and_never_cross_a_section(seed: int) -> None:
    parsed = random_document(seed)
    made = chunks(parsed, 20)
    held = [i for one in made for i in range(one.start, one.end)]
    assert len(held) == len(set(held))
    seen = {i for a, b in parsed.spans() for i in range(a, b) if not parsed.text[i].isspace()}
    assert seen <= set(held)
    assert not {i for a, b in parsed.hidden if b - a > SMALL for i in range(a, b)} & set(held)
    for one in made:
        assert one.end - one.start <= 20
        around = [n for n, s in enumerate(parsed.sections) if s.start <= one.start < s.end]
        assert [n for n, s in enumerate(parsed.sections) if s.start <= one.end - 1 < s.end] == around
        assert one.section == (around[-1] if around else None)
        assert one.parent[0] <= one.start < one.end <= one.parent[1]


def test_text_is_cut_after_sentences_in_both_languages() -> None:
    text = "第一句话在这里。第二句话也在这里！The third one is here. A fourth one?"
    cut = [text[one.start : one.end] for one in chunks(Parsed(text), 24)]
    assert cut[0] == "第一句话在这里。第二句话也在这里！"
    assert "".join(cut).replace(" ", "") == text.replace(" ", "")
    assert cut[1] == "The third one is here."


def test_a_table_that_fits_is_not_cut_through() -> None:
    text = "word " * 15 + "\n| a | b |\n| 1 | 2 |\n| 3 | 4 |\n" + "word " * 10
    table = (text.index("|"), text.rindex("|") + 1)
    assert any(one.start <= table[0] and table[1] <= one.end for one in chunks(Parsed(text, tables=(table,)), 90))
