"""A split is decided by what a row asks, so it stays as sets grow, and no two rows that are alike are apart."""

import random

import pytest

from myna.data.split import held_out, question, split
from myna.records import Candidate, Conversation, DataError, Document, Message

RNG = random.Random(0)
TEXTS = [" ".join(str(RNG.randrange(10**6)) for _ in range(30)) for _ in range(3000)]


def test_about_the_share_is_held_out_and_it_stays_when_the_set_grows() -> None:
    sides = [held_out(text, 0.1) for text in TEXTS]
    assert sum(sides) == pytest.approx(300, abs=60)
    assert split([Document(t) for t in TEXTS[:500]], 0.1) == sides[:500]
    assert split([Document(t) for t in reversed(TEXTS[:500])], 0.1) == sides[:500][::-1]
    assert [held_out(text, 0.1, seed=1) for text in TEXTS] != sides
    assert all(held_out(text, 0.2) for text, side in zip(TEXTS, sides, strict=True) if side)


def test_copies_and_near_copies_are_on_one_side() -> None:
    records = [Document(t) for text in TEXTS[:300] for t in (text, text.upper() + " ", f"{text} 7", f"{text}  7")]
    sides = split(records, 0.3)
    for n in range(0, len(sides), 4):
        assert len(set(sides[n : n + 4])) == 1
    apart = split(records, 0.3, near=None)
    assert any(len(set(apart[n : n + 4])) == 2 for n in range(0, len(apart), 4))
    assert all(apart[n] == apart[n + 1] and apart[n + 2] == apart[n + 3] for n in range(0, len(apart), 4))


def test_two_answers_to_one_question_stay_together() -> None:
    def row(answer: str) -> Conversation:
        return Conversation((Message("system", answer), Message("user", "q"), Message("assistant", answer)))

    assert question(row("a")) == question(row("b")) == "q"
    pair = Conversation((Message("user", "q"),), candidates=(Candidate((Message("assistant", "a"),), 1.0),))
    assert question(pair) == "q"
    more = Conversation((*row("a").messages, Message("user", "r"), Message("assistant", "b")))
    assert question(more) == "q\na\nr"


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="share"):
        split([], share)
