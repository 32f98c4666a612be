"""Moderation by lists: found whatever somebody did to hide it, and nothing else, in English and Chinese."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from said import judged, marked

from myna.checks.folded import fold, plain
from myna.checks.moderation import Lists, _shortened, lists_of, read_lists, views
from myna.records import DataError

HIDDEN = [
    "What the fuck", "FUCK", "ｆｕｃｋ", "fuсk", "f\u200bu\u00adck", "fuuuuck", "f u c k", "f.u.c.k!", "fúck", "phuck fuck", "𝓯𝓾𝓬𝓴",
    "sh1thead", "a$$hole", "你这个傻逼", "傻 逼", "傻*逼", "傻\u200b逼", "傻-逼吧", "ＣＮＭ", "c n m",
]  # fmt: skip


@pytest.mark.parametrize("text", HIDDEN)
def test_what_is_hidden_is_found(text: str) -> None:
    found = judged("moderation", text)
    assert not found.ok
    assert {span.label for span in found.spans} == {"insult"}


@pytest.mark.parametrize(
    "text",
    [
        "How can I kill a Python process?", "classic Scunthorpe assessment", "I could murder a curry", "怎么杀死进程？", "我想死你了，快回来",
        "He shot the photo in 1984 at f/2.8", "Dick Cheney and Essex", "这部电影讲的是自杀预防", "a s a p", "I hate this weather", "日本人和支那这个词的历史",
        "The suicide rate fell", "爆炸的物理原理", "В классе", "k 9 units",
    ],
)  # fmt: skip
def test_what_only_sounds_like_it_is_let_through(text: str) -> None:
    assert judged("moderation", text).ok


def test_spans_are_places_of_the_original() -> None:
    text = "嗯，傻\u200b 逼！ And f u c k."
    assert marked(judged("moderation", text), text) == [("傻\u200b 逼", "insult"), ("f u c k", "insult")]


def test_stars_instead_of_words_pass() -> None:
    check = lists_of(("en", "zh"))
    from myna.checks.moderation import Moderation

    guard = Moderation(check, frozenset(), frozenset())
    assert guard.mend("你个傻 逼, FUCK") == "你个***, ****"


def test_categories_and_exceptions_are_the_users_to_choose() -> None:
    text = "fuck, 怎么自杀"
    assert marked(judged({"moderation": {"categories": ["self-harm"]}}, text), text) == [("怎么自杀", "self-harm")]
    assert judged({"moderation": {"allow": ["Fuck", "怎么自杀"]}}, text).ok
    assert judged({"moderation": {"lists": ["zh"], "categories": ["insult"]}}, text).ok


def test_a_list_of_ones_own_is_text_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# ours\n[rivals]\nAcme Corp\n艾克米\n", encoding="utf-8")
    (tmp_path / "b.json").write_text('{"rivals": ["Acme Corp", "艾克米"]}', encoding="utf-8")
    for name in ("a.txt", "b.json"):
        spec = {"moderation": {"lists": [str(tmp_path / name)]}}
        assert not judged(spec, "用艾 克 米的产品").ok
        assert not judged(spec, "ACME CORP!").ok
        assert judged(spec, "Acme Corporation, acme").ok
    for text, error in (
        ("Acme\n", "before the first"),
        ('{"a": "b"}', "expected"),
        ('{"a": []}', "expected"),
        ('{"a": [1]}', "expected"),
        ("{}", "no list"),
        ('{"a": [" "]}', "nothing is left"),
        ("{", "b.json"),
        ("", "no list"),
        ("[x]\n\u200b\n", "nothing is left"),
    ):
        (tmp_path / "b.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=error):
            read_lists(str(tmp_path / "b.json"))


WORDS = st.lists(
    st.text(alphabet="abc傻逼 ", min_size=1, max_size=4).filter(lambda one: one.strip() == one), min_size=1, max_size=6
)


@settings(max_examples=200)
@example(["逼", "傻逼"], "傻逼")
@given(WORDS, st.text(alphabet="abc傻逼 .", max_size=30))
def test_all_phrases_are_found_in_one_pass_as_if_each_was_looked_for(phrases: list[str], text: str) -> None:
    """The oracle is str.find, phrase by phrase, over the same views of the text."""
    lists = Lists({phrase: [phrase] for phrase in phrases})
    folded = {phrase: _shortened(fold(phrase, plain)).text for phrase in phrases}
    expected = set()
    for view in views(text):
        for phrase in phrases:
            wanted, place = folded[phrase], view.text.find(folded[phrase])
            while place >= 0:
                from myna.checks.folded import whole

                if whole(view.text, place, place + len(wanted)):
                    expected.add((*view.span(place, place + len(wanted)), phrase))
                place = view.text.find(wanted, place + 1)
    found = {(span.start, span.end, span.label) for view in views(text) for span in lists._look(view)}
    assert found == expected
    covered = [(span.start, span.end, span.label) for span in lists.find(text)]
    assert set(covered) <= expected
    for start, end, label in expected:
        assert any(a <= start and end <= b and label == one for a, b, one in covered)


@pytest.mark.parametrize("piece", ["a", "f u c k ", "傻 ", "fuck", "a.b-c_d~", "0a", "傻逼", "\u200b", "！"])
def test_hostile_texts_end(piece: str) -> None:
    lists_of(("en", "zh")).find(piece * (40_000 // len(piece)))


def test_our_lists_are_read_and_hold_nothing_twice() -> None:
    for name in ("en", "zh"):
        found = [
            span
            for span in (Path(__file__).parents[2] / f"src/myna/checks/lists/{name}.txt")
            .read_text("utf-8")
            .splitlines()
            if span and span[0] not in "#["
        ]
        assert len(found) == len(set(found)) > 50
        for phrase in found:
            assert lists_of((name,)).find(phrase), phrase
