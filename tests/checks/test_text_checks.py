"""Length, words, expressions, schemas, citations, SQL: what counts, in English and Chinese, and in what time."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from said import judged, marked, said

from myna.checks import Named, named
from myna.checks.sentences import sentences
from myna.checks.text import Length
from myna.records import Conversation, DataError, SqlError, Unjudged


@pytest.mark.parametrize(
    ("spec", "text", "ok", "score"),
    [
        ({"length": {"most": 4}}, "abcd", True, 1),
        ({"length": {"most": 4}}, "你好世界吗呢呀哦", False, 0.5),
        ({"length": {"least": 4}}, "ab", False, 0.5),
        ({"length": {"most": 3, "unit": "words"}}, "one two three", True, 1),
        ({"length": {"most": 3, "unit": "words"}}, "我用 Python 写", False, 0.75),
        ({"length": {"most": 2, "unit": "sentences"}}, "One. Two! 3.14 is no third。", False, 2 / 3),
        ({"length": {"most": 2, "unit": "sentences"}}, "第一句。第二句！", True, 1),
        ({"includes": {"texts": ["Paris", "巴黎"]}}, "ＰＡＲＩＳ，即巴黎", True, 1),
        ({"includes": {"texts": ["Paris", "巴黎"]}}, "Paris", False, 0.5),
        ({"includes": {"texts": ["Paris", "巴黎"], "least": 1}}, "巴黎", True, 1),
        ({"includes": {"texts": ["art"]}}, "a party", False, 0),
        ({"excludes": {"texts": ["sorry", "抱歉"]}}, "sorrysorry", True, 1),
        ({"excludes": {"texts": ["sorry", "抱歉"]}}, "很抱歉。Sorry!", False, 0),
        ({"regex": {"pattern": r"^\d{4}年"}}, "2024年", True, 1),
        ({"regex": {"pattern": "^[a-z]+$"}}, "ABC", False, 0),
        ({"regex": {"pattern": "TODO", "forbid": True}}, "a TODO", False, 0),
        ({"language": {"code": "zh"}}, "这是中文，带 one word", False, 5 / 12 / 0.5),
        ({"language": {"code": "zh"}}, "这是中文 ok", True, 1),
        ({"language": {"code": "en"}}, "English 中", True, 1),
    ],
)
def test_what_a_text_must_be(spec: Any, text: str, ok: bool, score: float) -> None:
    found = judged(spec, text)
    assert (found.ok, found.score) == (ok, pytest.approx(score))


def test_what_is_wrong_is_marked() -> None:
    assert marked(judged({"length": {"most": 2, "unit": "words"}}, "你好 there"), "你好 there") == [("there", "over")]
    text = "很抱歉。Sorry!"
    assert marked(judged({"excludes": {"texts": ["sorry", "抱歉"]}}, text), text) == [
        ("抱歉", "抱歉"),
        ("Sorry", "sorry"),
    ]


@given(st.text(), st.integers(0, 20), st.sampled_from(["characters", "words", "sentences"]))
def test_a_text_that_was_cut_to_its_length_has_it(text: str, most: int, unit: Any) -> None:
    check = Length(0, most, unit)
    cut = check.mend(text)
    assert check(Conversation(()), said(cut)).ok
    if check(Conversation(()), said(text)).ok:
        assert cut == text


@pytest.mark.parametrize(("text", "count"), [("J. " * 50_000, 1), ("." * 50_000 + "x", 1), ("3 " * 50_000 + ".", 1)])
def test_sentences_of_a_hostile_text_are_found_in_time_that_grows_with_it(text: str, count: int) -> None:
    assert len(sentences(text)) == count


@given(st.text(alphabet="ab 。.!？\n”", max_size=60))
def test_sentences_are_in_order_and_leave_only_blanks_out(text: str) -> None:
    places = [*sentences(text)]
    assert all(a < b for a, b in places)
    assert all(one[1] <= two[0] for one, two in pairwise(places))
    rest = "".join(
        text[a:b] for a, b in zip([0, *(b for _, b in places)], [*(a for a, _ in places), len(text)], strict=True)
    )
    assert not rest.strip()


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"length": {}}, "give least, most or both"),
        ({"length": {"most": "200"}}, "check.length.most: Input should be a valid integer"),
        ({"length": {"most": True}}, "check.length.most"),
        ({"length": {"most": 1, "unit": "pages"}}, "check.length.unit"),
        ({"length": {"mots": 1}}, "Did you mean most"),
        ({"regex": {"pattern": "(?=a)b"}}, "linear time"),
        ({"regex": {"pattern": "("}}, "linear time"),
        ({"regex": {}}, "check.regex.pattern: missing"),
        ({"includes": {"texts": []}}, "none of them empty"),
        ({"excludes": {"texts": ["a", " "]}}, "none of them empty"),
        ({"schema": {"schema": {"type": "objekt"}}}, "is no JSON Schema"),
        ({"pii": {"kinds": ["emial"]}}, "check.pii.kinds"),
        ({"moderation": {"lists": ["no/such/list"]}}, "No such file"),
        ({"moderation": {"categories": ["hat"]}}, "these lists have"),
        ({"judge": {"rubric": "x", "provider": "y"}}, "it has rubric, labels, passes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_asked(spec: Any, error: str) -> None:
    with pytest.raises(DataError, match=error):
        Named.from_json(spec)


def test_what_a_check_needs_is_given_by_whoever_makes_it() -> None:
    with pytest.raises(DataError, match="judge needs a provider"):
        named({"judge": {"rubric": "good?"}})
    with pytest.raises(DataError, match="sql needs a guard"):
        named("sql")


def test_an_expression_takes_time_that_grows_with_the_text_alone() -> None:
    """With backtracking this takes 2 to the power of 50,000 steps."""
    assert not judged({"regex": {"pattern": "^(a+)+$"}}, "a" * 50_000 + "b").ok


def test_json_may_stand_in_a_fence_and_must_be_what_the_schema_says() -> None:
    spec = {"schema": {"schema": {"type": "object", "required": ["年"], "properties": {"年": {"type": "integer"}}}}}
    assert judged(spec, ' {"年": 1} ').ok
    assert judged(spec, '```json\n{"年": 1}\n```').ok
    assert "年" in judged(spec, '{"年": "x"}').reason
    text = '{"年": 1} and more'
    assert marked(judged(spec, text), text) == [("and more", "not JSON")]
    for hostile in ("[" * 100_000, "```", "```\n```", "", '{"年": 1e999999999}'):
        assert not judged(spec, hostile).ok


SOURCES = Conversation.ask("?", meta={"sources": ["The tower is 330 m tall.", "塔建于1889年。"]})


@pytest.mark.parametrize(
    ("spec", "text", "wrong"),
    [
        ("citation", "It is 330 m tall [1]. 建于1889年【2】。", []),
        ("citation", "It is tall [1, 5].", [("[1, 5]", "no source 5")]),
        ("citation", "高[3]。", [("[3]", "no source 3")]),
        ({"citation": {"every": True}}, "Tall [1]. Old.", [("Old.", "no citation")]),
        ({"citation": {"quotes": True}}, 'It says "The tower is 330 m tall" [1].', []),
        ({"citation": {"quotes": True}}, "书上说“塔建于1989年”[2]。", [("“塔建于1989年”", "not in the source")]),
        ({"citation": {"quotes": True}}, "书上说“塔建于1889年”[1]。", [("“塔建于1889年”", "not in the source")]),
    ],
)
def test_citations_are_of_what_was_given(spec: Any, text: str, wrong: list[tuple[str, str]]) -> None:
    found = judged(spec, text, SOURCES)
    assert found.ok is not bool(wrong)
    assert marked(found, text) == wrong


def test_an_answer_that_cites_nothing_does_not_pass_and_sources_there_must_be() -> None:
    assert judged("citation", "It is tall.", SOURCES).reason == "it cites nothing"
    with pytest.raises(DataError, match=r"no meta.sources"):
        judged("citation", "[1]")


def test_a_query_is_what_the_given_function_says() -> None:
    rows = {"SELECT 1": [(1,)], "SELECT 2": [(2,), (1,)], "SELECT 3": [(1,), (2,)]}

    def run(query: str) -> list[tuple[int, ...]]:
        if query == "gone":
            raise SqlError("no such database", kind="unavailable")
        if query not in rows:
            raise SqlError("not a query", kind="refused")
        return rows[query]

    assert judged("sql", "这样查：\n```sql\nSELECT 1\n```\n好了", guard=run).ok
    assert judged("sql", "DROP TABLE t", guard=run).reason == "refused: not a query"
    same = {"sql": {"same_rows": True}}
    assert judged(same, "SELECT 3", Conversation.ask("?", target="SELECT 2"), guard=run).ok
    assert not judged(same, "SELECT 1", Conversation.ask("?", target="SELECT 2"), guard=run).ok
    with pytest.raises(Unjudged, match="no such database"):
        judged("sql", "gone", guard=run)
    with pytest.raises(Unjudged, match="target's query does not run"):
        judged(same, "SELECT 1", Conversation.ask("?", target="DROP"), guard=run)


def test_the_guard_of_queries_is_a_check_as_it_is() -> None:
    pytest.importorskip("sqlglot")
    from myna.apps.sql.database import Column, Table
    from myna.apps.sql.guard import Allowed, check

    allowed = Allowed.of("sqlite", [Table("songs", (Column("name", "TEXT"),))])
    assert judged("sql", "SELECT name FROM songs", guard=lambda query: check(query, allowed)).ok
    found = judged("sql", "DELETE FROM songs", guard=lambda query: check(query, allowed))
    assert (found.ok, found.reason.split(":")[0]) == (False, "refused")
