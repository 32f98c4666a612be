"""Each rule is broken by a text made to break it, and by no ordinary text."""

import random

import pytest

from myna.data.quality import RULES, Summary, flaws, quality, script
from myna.data.sources import Place

GOOD = (
    "The harbour lay quiet under the morning fog, and the fishermen had not yet come down to their boats. A single lamp burned "
    "in the window above the chandler's shop, where Maria was counting yesterday's coins for the third time.\n\n"
    "She had no reason to doubt the sum. Her brother, though, had a way of borrowing without a word; he always meant to pay it "
    "back, and sometimes he even did. Outside, a gull complained about the cold."
)
CHINESE = (
    "清晨的港口笼罩在薄雾之中，渔民们还没有来到船边。杂货铺楼上的窗户里亮着一盏孤灯，玛丽亚正在第三遍清点昨天收来的硬币。"
    "她没有理由怀疑这个数目，可是她的哥哥总是不打招呼就借钱。他每次都打算归还，有时候真的还了。外面有一只海鸥在抱怨寒冷。"
)
WORDS = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}ord" for n in range(600)]
RNG = random.Random(0)
DISTINCT = " ".join(RNG.sample(WORDS, 400)) + "."
BROKEN = {
    "fewer than 50 words": "Too short.",
    "more than 100,000 words": DISTINCT * 252,
    "words too short or too long": GOOD + " a b c d e f g h i j k" * 30,
    "many symbols": GOOD + " # tag" * 30,
    "many words without letters": GOOD + " 12 34 567" * 20,
    "mostly bullets": "\n".join(f"- {line}." for line in DISTINCT.split()),
    "many lines end in ...": "\n".join(f"{word} goes on ..." for word in WORDS[:60]) + "\n" + GOOD,
    "repeated lines": GOOD + "\nClick here to subscribe to our letter." * 12,
    "repeated paragraphs": "\n\n".join([GOOD.split("\n\n")[0]] * 3),
    "one pair of words over and over": GOOD + " buy now" * 60,
    "one phrase over and over": GOOD + " the best shoes online" * 20,
    "repeated passages": GOOD.replace("\n\n", " ") + " " + " ".join(GOOD.split()[:40]),
    "no line ends like a sentence": "\n".join(WORDS[i] + " " + WORDS[i + 1] for i in range(0, 100, 2)),
    "broken characters": GOOD + "\ufffd\x00",
}


@pytest.mark.parametrize("text", [GOOD, CHINESE, DISTINCT])
def test_ordinary_text_breaks_no_rule(text: str) -> None:
    assert flaws(quality(text)) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_text_made_to_break_a_rule_breaks_it(rule: str) -> None:
    assert rule in flaws(quality(BROKEN[rule]))


def test_counts_are_those_counted_by_hand() -> None:
    found = quality("One two\nOne two\n\nthree four!")
    assert (found.words, found.lines, found.characters) == (6, 3, 28)
    assert found.mean_word == 21 / 6
    assert found.repeated_lines == 7 / 25
    assert found.open_lines == 2 / 3
    assert found.top_2gram == 12 / 21
    assert quality("a b c d e f g h i j x a b c d e f g h i j").repeated_10grams == 10 / 21


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (GOOD, "Latin"), (CHINESE, "Han"), ("Привет, мир", "Cyrillic"), ("こんにちは、世界", "Kana"), ("안녕", "Hangul"),
        ("שלום", "Hebrew"), ("مرحبا", "Arabic"), ("สวัสดี", "Thai"), ("नमस्ते", "Devanagari"), ("Γειά", "Greek"), ("12 + 3", "none"),
    ],
)  # fmt: skip
def test_the_script_of_most_letters(text: str, name: str) -> None:
    assert script(text) == name


def test_a_summary_names_the_first_that_break_a_rule() -> None:
    summary = Summary()
    for n, text in enumerate([GOOD, "Short.", CHINESE, "Kurz.", "短"], start=1):
        summary.add(Place("a.txt", n), text)
    assert summary.broken["fewer than 50 words"] == 3
    assert summary.first["fewer than 50 words"] == ["a.txt:2", "a.txt:4", "a.txt:5"]
    assert summary.scripts == {"Latin": 3, "Han": 2}
    assert summary.to_json()["lengths"]["max"] == len(GOOD)


@pytest.mark.parametrize("text", ["", " \n", "\ud800", "!!!"])
def test_odd_text_is_counted_too(text: str) -> None:
    assert quality(text).words == 0
