"""What an answer says that its evidence does not: numbers, names and words, in English and Chinese."""

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from said import judged, marked, said

from myna.checks import verdict
from myna.checks.grounding import entailment, grounding
from myna.provider import Scripted
from myna.records import Conversation, DataError, Unjudged

EN = "The Eiffel Tower was finished in 1889. It is 330 metres tall and stands in Paris. It cost 7,799,401 francs."
ZH = "埃菲尔铁塔于1889年建成，高330米，位于法国巴黎的战神广场。它由居斯塔夫·埃菲尔的公司设计和建造。"


def told(evidence: str) -> Conversation:
    return Conversation.ask("?", meta={"sources": [evidence]})


@pytest.mark.parametrize(
    ("evidence", "answer", "wrong"),
    [
        (EN, "The tower was finished in 1889. It stands in Paris.", []),
        (EN, "It cost 7799401 francs.", []),
        (EN, "The tower stands 331 metres tall.", ["number 331"]),
        (EN, "The tower stands in Rome.", ["name Rome"]),
        (EN, "Penguins eat fish and swim quickly.", ["0% of its words"]),
        (ZH, "埃菲尔铁塔建成于１８８９年，高330米。", []),
        (ZH, "埃菲尔铁塔高３３１米。", ["number 331"]),
        (ZH, "铁塔高330米。企鹅喜欢吃鱼和游泳。", ["0% of its words"]),
        (ZH, "共12部电梯的埃菲尔铁塔位于巴黎。", ["number 12"]),
        (EN, "Yes. Of course!", []),
    ],
)
def test_what_is_not_in_the_evidence_is_marked(evidence: str, answer: str, wrong: list[str]) -> None:
    found = judged("grounding", answer, told(evidence))
    assert [label for _, label in marked(found, answer)] == wrong
    assert found.ok is not bool(wrong)


def test_the_score_is_the_share_of_sentences_that_rest_on_it() -> None:
    assert judged("grounding", "The tower is in Paris. The tower is in Rome.", told(EN)).score == 0.5


def test_evidence_is_the_named_input_else_the_sources_else_what_was_said() -> None:
    talk = Conversation.ask("The tower is in Rome.", meta={"inputs": {"text": EN}, "sources": [ZH]})
    assert judged({"grounding": {"inputs": ["text"]}}, "The tower stands in Paris.", talk).ok
    assert not judged("grounding", "The tower stands in Paris.", talk).ok
    bare = Conversation.ask("The tower stands in Rome.")
    assert judged("grounding", "The tower stands in Rome.", bare).ok
    with pytest.raises(DataError, match="no such input"):
        judged({"grounding": {"inputs": ["notes"]}}, "x", bare)


@given(st.text(alphabet="Paris is 33.0, 米在12%《》[]A-b。\n", max_size=80))
@example("《[0]》")
@example("《红[0]楼》")
def test_what_stands_in_the_evidence_word_for_word_is_grounded(text: str) -> None:
    found = grounding()(told(text), said(text))
    assert found.ok, found


def entailed(script: list[Any], answer: str) -> Any:
    check = entailment(Scripted(script))
    return asyncio.run(verdict(check, told(EN), said(answer)))


def test_a_model_is_asked_about_what_words_alone_do_not_refuse() -> None:
    answer = "Paris stands in the Eiffel Tower. The tower is 331 metres tall."
    found = entailed(["not supported"], answer)
    assert [label for _, label in marked(found, answer)] == ["the model finds no support", "number 331"]
    assert entailed(["supported"], "The tower stands in Paris.").ok
    with pytest.raises(Unjudged, match="none of"):
        entailed(["I think so"], "The tower stands in Paris.")
