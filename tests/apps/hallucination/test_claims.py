import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.apps.hallucination.claims import MOST, calls_at_most, split, table
from myna.provider import Scripted
from myna.records import RequestError

EVIDENCE = [
    "Ada Lovelace was born in London in 1815. She wrote notes on the Analytical Engine.",
    "李白生于701年，是唐代诗人。",
]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("It rained. It stopped.", ["It rained.", "It stopped."]),
        ("Dr. Smith paid 3.5 dollars. He left!", ["Dr. Smith paid 3.5 dollars.", "He left!"]),
        ("J. R. Smith of the U.S. won.", ["J. R. Smith of the U.S. won."]),
        ('He said "Stop." Then he ran.', ['He said "Stop."', "Then he ran."]),
        ("1. First\n2. Second", ["1. First", "2. Second"]),
        ("下雨了。雨停了！真的吗？是的", ["下雨了。", "雨停了！", "真的吗？", "是的"]),
        ("他说：“走吧。”然后走了；没有回来。", ["他说：“走吧。”", "然后走了；", "没有回来。"]),
        ("共3.5元。It costs 3.5 yuan.", ["共3.5元。", "It costs 3.5 yuan."]),
        ("", []),
        (" \n ", []),
        ("---\n# 龙井茶\n\n***\nIt rained.\n...", ["# 龙井茶", "It rained."]),
    ],
)
def test_sentences_are_claims_in_both_languages(text: str, claims: list[str]) -> None:
    assert [one.text for one in split(text)] == claims


@given(st.text('aB1.。！? \n"”U', max_size=60))
def test_every_letter_is_in_exactly_one_claim(text: str) -> None:
    found = split(text)
    assert all(text[one.start : one.end] == one.text != "" for one in found)
    covered = [i for one in found for i in range(one.start, one.end)]
    assert len(covered) == len(set(covered))
    assert {i for i, c in enumerate(text) if c.isalnum()} <= set(covered)


def test_each_claim_has_its_evidence_or_none() -> None:
    text = "Lovelace was born in London. She was born in 1816. She liked tea. 李白是唐代诗人。"
    provider = Scripted(
        [
            "Quote: Ada Lovelace was born in London in 1815.\nAnswer: supported",
            "Quote: born in London in 1815\nAnswer: contradicted",
            "Quote: She wrote notes\nAnswer: none",
            "引文：李白生于701年，是唐代诗人。\n答案：supported",
        ]
    )
    rows = asyncio.run(table(provider, text, EVIDENCE))
    assert [row.label for row in rows] == ["supported", "contradicted", "none", "supported"]
    assert [row.quote.source if row.quote else None for row in rows] == [0, 0, 0, 1]
    assert len(provider.requests) == calls_at_most(text) == 4


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Quote: born in Paris\nAnswer: supported", "the quote is not in the evidence"),
        ("Quote: born in London in 1815\nAnswer: supported", "the quote does not have 1816"),
        ("Quote: born in London in 1815\nAnswer: perhaps", "did not say"),
        ("supported", "no quote"),
        ("", "no quote"),
    ],
)
def test_the_models_word_alone_supports_nothing(said: str, why: str) -> None:
    (row,) = asyncio.run(table(Scripted([said]), "She was born in London in 1816.", EVIDENCE))
    assert row.label == "none"
    assert why in row.why


def test_more_claims_than_are_looked_at_are_refused_before_any_call() -> None:
    provider = Scripted([])
    with pytest.raises(RequestError, match="31 claims"):
        asyncio.run(table(provider, "好。" * (MOST + 1), EVIDENCE))
    assert provider.requests == []
