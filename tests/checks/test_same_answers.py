import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.checks.same import alike, f1, groups, normalised, right

ANSWERS = ["Paris", "paris.", "The Paris", "Rome", "in Rome", "巴黎", "巴黎。", "北京", "308", "308 points", ""]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("１，２３４", "1234"),
        ("1,234", "1234"),
        ("“巴黎”", "巴黎。"),
        ("A", "a"),
        ("3.5%", "3.5"),
    ],
)
def test_case_articles_punctuation_and_width_do_not_count(a: str, b: str) -> None:
    assert normalised(a) == normalised(b) != ""


# SQuAD's f1_score (evaluate-v1.1.py) on such pairs, by hand: 2 * common / (words of both).
@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        ("in 1889", "1889", 2 / 3),
        ("the cat sat", "cat sat", 1.0),
        ("北京市", "北京", 0.8),
        ("no no no", "no", 0.5),
        ("yes", "no", 0.0),
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_f1_is_squads_with_a_chinese_character_a_word(said: str, wanted: str, score: float) -> None:
    assert f1(said, wanted) == pytest.approx(score)


def test_another_number_is_another_answer() -> None:
    assert alike("about ten thousand people lived in the old town", "about ten thousand people lived in old town then")
    assert not alike(
        "the battle was fought in the year 1066 of our time", "the battle was fought in the year 1067 of our time"
    )
    assert not alike("公元1066年在黑斯廷斯发生的战役", "公元1067年在黑斯廷斯发生的战役")


@given(st.permutations(ANSWERS))
def test_groups_do_not_depend_on_the_order(answers: list[str]) -> None:
    def said(order: list[str]) -> set[frozenset[str]]:
        return {frozenset(order[i] for i in group) for group in groups(order)}

    assert said(answers) == said(ANSWERS)


@given(st.lists(st.sampled_from(ANSWERS), max_size=12))
def test_every_answer_is_in_exactly_one_group_and_the_largest_is_first(answers: list[str]) -> None:
    found = groups(answers)
    assert sorted(i for group in found for i in group) == list(range(len(answers)))
    assert [len(group) for group in found] == sorted((len(group) for group in found), reverse=True)


def test_a_chain_of_likenesses_is_one_group() -> None:
    names = [str(i) for i in range(8)]
    random.Random(0).shuffle(names)
    assert len(groups(names, lambda a, b: abs(int(a) - int(b)) == 1)) == 1


@pytest.mark.parametrize(
    ("said", "answers", "good"),
    [
        ("The third bone is the stapes.", ["Stapes"], True),
        ("在1889年", ["1889年"], True),
        ("1889", ["1889年"], True),
        ("1888年", ["1889年"], False),
        ("Francis Poulenc", ["Poulenc", "x"], True),
        ("308 points", ["309 points"], False),
        ("cat", ["caterpillar"], False),
        ("", ["x"], False),
        ("", [""], False),
        ("x", [], False),
        ("red green blue " * 10, ["blue"], False),
    ],
)
def test_a_labelled_answer_is_found_in_a_short_one(said: str, answers: list[str], good: bool) -> None:
    assert right(said, answers) is good
