import asyncio
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from myna.apps.hallucination.claims import ANSWER
from myna.apps.hallucination.quotes import CALLS, EVIDENCE, answer, grammar
from myna.checks.verbatim import locate
from myna.provider import Scripted
from myna.provider.powers import OURS
from myna.records import RequestError

EVIDENCE_EN = "The Panthers defense gave up just 308 points, ranking sixth in the league."
EVIDENCE_ZH = "黑豹队的防守只丢了308分，在联盟中排名第六。"
BOTH = [EVIDENCE_EN, EVIDENCE_ZH]


@dataclass(slots=True)
class Enforcing(Scripted):
    powers: object = field(default_factory=lambda: OURS)


@given(st.text("ab 。\n", max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_quote_is_an_exact_part_of_the_evidence(text: str, a: int, b: int) -> None:
    found = locate(text[a:b], ["zz", text])
    if found:
        assert found.text == ["zz", text][found.source][found.start : found.end] != ""
        around = text[: found.start] + "|" + found.text + "|" + text[found.end :]
        assert found.source == 0 or not re.search(r"[ab]\|[ab]", around)
    elif text[a:b].strip(" 。\n"):
        assert re.search(r"[ab]\|[ab]", text[:a] + "|" + text[a:b] + "|" + text[b:])


@pytest.mark.parametrize(
    "said",
    ["just 309 points", "JUST 308 POINTS", "", "  ", "...", "“”", "just308 points", "30", "8 points", "丢了30"],
)
def test_what_is_not_there_is_no_quote(said: str) -> None:
    assert locate(said, BOTH) is None


@pytest.mark.parametrize("said", ["just  308 points", "gave up\njust 308 points"])
def test_a_quote_may_go_on_in_the_next_line(said: str) -> None:
    broken = "The Panthers defense gave up just\n   308 points, ranking sixth."
    found = locate(said, [broken])
    assert found is not None
    assert broken[found.start : found.end] == found.text
    assert found.text.endswith("just\n   308 points")


def test_marks_around_a_quote_are_not_part_of_it() -> None:
    found = locate("「只丢了308分」", BOTH)
    assert found is not None
    assert (found.source, found.text) == (1, "只丢了308分")
    assert locate('"a"', ['say "a" now']).text == '"a"'  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "text", "source"),
    [
        ("Quote: gave up just 308 points\nAnswer: 308", "308", 0),
        ("引文：只丢了308分\n答案：308分", "308分", 1),
        ("> **Quote:** “just 308 points”\n**Answer:** 308", "308", 0),
    ],
)
def test_an_answer_comes_with_its_quotes(said: str, text: str, source: int) -> None:
    found = asyncio.run(answer(Scripted([said]), "How many points?", BOTH))
    assert (found.answer, found.outcome, found.calls) == (text, "answered", 1)
    assert found.quotes[0].source == source
    quote = found.quotes[0]
    assert BOTH[quote.source][quote.start : quote.end] == quote.text


def test_an_invented_quote_is_refused_told_and_asked_for_once_more() -> None:
    provider = Scripted(["Quote: gave up 400 points\nAnswer: 400", "Quote: just 308 points\nAnswer: 308"])
    found = asyncio.run(answer(provider, "How many?", BOTH))
    assert (found.answer, found.calls, found.refused) == ("308", 2, ("gave up 400 points",))
    again = provider.requests[1].what.messages[-1].text  # type: ignore[union-attr]
    assert "<untrusted" in again.split("gave up 400 points")[0]


@pytest.mark.parametrize(
    "said", ["", "400", "{}", "Quote: x", "Quote: x\nAnswer: 400", "Answer: 308", "Quote:\nAnswer:\n" * 99]
)
def test_without_a_quote_there_is_no_answer_after_a_bounded_number_of_calls(said: str) -> None:
    provider = Scripted([said] * 9)
    found = asyncio.run(answer(provider, "How many?", BOTH))
    assert (found.answer, found.outcome) == (None, "unquoted")
    assert len(provider.requests) == found.calls == CALLS


@pytest.mark.parametrize("said", ["Quote: NONE", "quote: none.", "引用：“NONE”", "Answer: NONE"])
def test_no_evidence_is_an_outcome_and_not_asked_again(said: str) -> None:
    found = asyncio.run(answer(Scripted([said]), "谁赢了？", BOTH))
    assert (found.answer, found.outcome, found.calls) == (None, "none", 1)


def test_too_much_evidence_is_refused_before_any_call() -> None:
    provider = Scripted([])
    for evidence in ([], ["a" * (EVIDENCE + 1)]):
        with pytest.raises(RequestError, match="characters"):
            asyncio.run(answer(provider, "?", evidence))
    assert provider.requests == []


def test_a_grammar_is_asked_for_only_where_it_is_enforced() -> None:
    script = ["Quote: just 308 points\nAnswer: 308"]
    ours, plain = Enforcing(script), Scripted(script)
    for provider in (ours, plain):
        asyncio.run(answer(provider, "How many?", BOTH))
    assert ours.requests[0].sampling.form == grammar(BOTH)
    assert plain.requests[0].sampling.form is None


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("Quote: gave up just 308 points\nAnswer: 308", True),
        ("Quote: 丢了308分，在联盟\nQuote: just 308 points\nAnswer: 三百零八", True),
        ("Quote: NONE", True),
        ("Quote: gave up just 309 points\nAnswer: 309", False),
        ("Quote: gave up jus\nAnswer: x", False),  # half a word
        ("Quote: 丢了309分\nAnswer: x", False),
        ("Answer: 308", False),
    ],
)
def test_the_grammar_has_the_evidences_words_and_no_others(said: str, allowed: bool) -> None:
    form = grammar(BOTH)
    assert form is not None
    assert form.kind == "grammar"
    assert follows(form.source, said) is allowed


def follows(source: str, text: str) -> bool:
    """Whether llguidance takes the text byte by byte and could end there."""
    from llguidance import LLTokenizer

    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, {"grammars": [{"lark_grammar": source}]})
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("Quote: just 308 points\nAnswer: none", True),
        ("Quote: NONE", False),
        ("Quote: just 308 points\nQuote: 308\nAnswer: none", False),
        ("Quote: just 308 points\nAnswer: maybe", False),
    ],
)
def test_a_claims_grammar_wants_one_quote_before_the_label(said: str, allowed: bool) -> None:
    form = grammar(BOTH, ANSWER, quotes=1, none=False)
    assert form is not None
    assert follows(form.source, said) is allowed


@pytest.mark.parametrize("hostile", ['"] } start: /.*/ #', "\\", "a\u2028b", "%regex {}", "\x00", "// x", "'\"`"])
def test_no_evidence_writes_grammar_of_its_own(hostile: str) -> None:
    form = grammar([f"one {hostile} two"])
    assert form is not None
    assert not follows(form.source, "Quote: three\nAnswer: x")
    assert follows(form.source, "Quote: one\nAnswer: x")


def test_evidence_too_long_for_a_grammar_is_read_without_one() -> None:
    long = "word " * 5_000
    assert grammar([long]) is None
    found = asyncio.run(answer(Enforcing(["Quote: word word\nAnswer: word"]), "?", [long]))
    assert found.outcome == "answered"
