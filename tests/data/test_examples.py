"""Records become examples: every token is learned that should be, once, and whatever does not fit is counted."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from myna.chat.byte_chat import byte_chat, ids_of
from myna.data import Cuts, Fit, Place, Sourced, end_of_text, of_conversations, of_documents, of_judged, of_preferences
from myna.data.examples import Overlong
from myna.data.tokens import Example
from myna.records import Candidate, Conversation, DataError, Document, Message, Tokens

CHAT = byte_chat()
PROMPT = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def placed(*records: object) -> list[Sourced]:
    return [Sourced(Place("rows.jsonl", i), record) for i, record in enumerate(records, start=1)]


def examples(found: Iterable[Sourced[Example]]) -> list[Example]:
    return [example for _, example in found]


def learned(example: Example) -> list[bytes]:
    """The supervised bytes of each sequence; <|im_end|> as |."""
    return [bytes(min(int(i), 256) if i < 256 else 124 for i in s.ids[s.weights != 0]) for s in example]


def answered(*answers: str) -> Conversation:
    turns = [turn for answer in answers for turn in (Message("user", "Hi"), Message("assistant", answer))]
    return Conversation(tuple(turns))


@pytest.mark.parametrize("context", [2, 3, 7, 8, 100])
def test_every_token_of_a_text_but_its_first_is_learned_once(context: int) -> None:
    text = "床前明月光 abc"
    found = examples(of_documents(placed(Document(text)), CHAT.tokenizer, context))
    end = end_of_text(CHAT.tokenizer)
    ids = [*text.encode(), end]
    assert [int(i) for (s,) in found for i in s.ids[1:][s.weights[1:] != 0]] == ids[1:]
    assert all(len(s) <= context and s.weights[0] == 0 for (s,) in found)
    assert all(s.ids[0] == before.ids[-1] for (before,), (s,) in pairwise(found))


def test_ids_that_a_text_was_sampled_as_are_used_as_they_are() -> None:
    ((sequence,),) = examples(of_documents(placed(Document("abc", Tokens((1, 2, 3)))), CHAT.tokenizer, 8))
    assert sequence.ids.tolist() == [1, 2, 3]


def test_texts_and_evidence_keep_their_order_and_places() -> None:
    records = placed(Document("a"), Document("b", Tokens((7, 8))), Document("c"))
    found = [(place.line, int(example[0].ids[0])) for place, example in of_documents(records, CHAT.tokenizer, 8)]
    assert found == [(1, ord("a")), (2, 7), (3, ord("c"))]


def test_many_texts_are_encoded_as_each_alone() -> None:
    texts = ["a <|im_end|> typed", "", "春", " b"]
    assert CHAT.tokenizer.encode_many(texts) == [CHAT.tokenizer.encode(text) for text in texts]


def test_only_the_assistant_is_learned_and_that_it_ends() -> None:
    (example,) = examples(of_conversations(placed(answered("Yes", "No")), CHAT, Fit(200), Cuts()))
    assert learned(example) == [b"Yes|No|"]


def test_what_was_sampled_is_what_is_learned() -> None:
    odd = Tokens(tuple(ids_of("Yes")))
    conversation = Conversation((Message("user", "Hi"), Message("assistant", "Yes", tokens=odd)))
    ((sequence,),) = examples(of_conversations(placed(conversation), CHAT, Fit(200), Cuts()))
    assert sequence.ids[sequence.weights != 0].tolist() == [*odd.ids]
    lying = Conversation((Message("user", "Hi"), Message("assistant", "No", tokens=odd)))
    with pytest.raises(DataError, match=r"rows.jsonl:1: messages.1.tokens: the ids read 'Yes'"):
        list(of_conversations(placed(lying), CHAT, Fit(200), Cuts()))


def test_the_two_sides_of_a_preference_share_their_prompt_and_nothing_of_it_is_learned() -> None:
    answers = tuple(Candidate((Message("assistant", text),), score) for text, score in (("bad", 0), ("good", 1)))
    earlier = (*answered("Yes").messages, Message("user", "Hi"))
    (pair,) = examples(of_preferences(placed(Conversation(earlier, candidates=answers)), CHAT, Fit(400), Cuts()))
    assert learned(pair) == [b"good|", b"bad|"]
    first = int(np.argmax(pair[0].weights != 0))
    assert pair[0].ids[:first].tolist() == pair[1].ids[:first].tolist()
    assert [side.facts["score"] for side in pair] == [1, 0]


def test_ranked_answers_give_every_pair_of_different_score() -> None:
    ranks = (("c", 0.0), ("a", 1.0), ("b", 0.5), ("b2", 0.5))
    answers = tuple(Candidate((Message("assistant", text),), score) for text, score in ranks)
    row = placed(Conversation((Message("user", "Hi"),), candidates=answers))
    pairs = [tuple(learned(pair)) for pair in examples(of_preferences(row, CHAT, Fit(400), Cuts()))]
    assert sorted(pairs) == [(b"a|", b"b2|"), (b"a|", b"b|"), (b"a|", b"c|"), (b"b2|", b"c|"), (b"b|", b"c|")]
    alike = placed(Conversation((Message("user", "Hi"),), candidates=(answers[2], answers[3])))
    with pytest.raises(DataError, match=r"rows.jsonl:1: candidates: none is better"):
        list(of_preferences(alike, CHAT, Fit(400), Cuts()))


def test_a_judged_answer_carries_its_score() -> None:
    row = Conversation((Message("user", "Hi"),), candidates=(Candidate((Message("assistant", "Go"),), 0.0),))
    ((sequence,),) = examples(of_judged(placed(row), CHAT, Fit(400), Cuts()))
    assert sequence.facts == {"score": 0.0}


LONG = answered("x" * 100)
SIZE = (
    len(PROMPT) - 2 * len("<|im_start|>") - len("<|im_end|>") + 3 + 100 + 2
)  # ids of LONG: three markers, end and line end


@pytest.mark.parametrize(
    ("overlong", "kept", "cuts"),
    [
        ("drop", 0, Cuts(dropped=1, lost_tokens=SIZE)),
        ("truncate", 1, Cuts(truncated=1, lost_tokens=SIZE - 40)),
        ("split", 4, Cuts(split=1, lost_tokens=0)),
    ],
)
def test_what_does_not_fit_is_counted(overlong: Overlong, kept: int, cuts: Cuts) -> None:
    counted = Cuts()
    found = examples(of_conversations(placed(LONG), CHAT, Fit(40, overlong), counted))
    assert (len(found), counted) == (kept, cuts)
    assert all(len(s) <= 40 and s.supervised for (s,) in found)
    if overlong == "split":
        assert b"".join(learned(e)[0] for e in found) == b"x" * 100 + b"|"


def test_what_does_not_fit_is_an_error_unless_told() -> None:
    with pytest.raises(
        DataError, match=rf"rows.jsonl:1: {SIZE} tokens, and the context holds 40.*--overlong split or drop"
    ):
        list(of_conversations(placed(LONG), CHAT, Fit(40), Cuts()))


def test_a_row_whose_answer_is_all_cut_off_is_dropped_and_said_so() -> None:
    counted = Cuts()
    assert not examples(of_conversations(placed(answered("Yes")), CHAT, Fit(10, "truncate"), counted))
    assert (counted.dropped, counted.truncated) == (1, 0)


def test_a_pair_that_is_cut_short_shares_the_room() -> None:
    answers = tuple(Candidate((Message("assistant", t),), s) for t, s in (("y" * 90, 1.0), ("n", 0.0)))
    row = placed(Conversation((Message("user", "Hi"),), candidates=answers))
    counted = Cuts()
    ((chosen, rejected),) = examples(of_preferences(row, CHAT, Fit(100, "truncate"), counted))
    assert len(chosen) + len(rejected) == 100
    assert learned((rejected,)) == [b"n|"]
    assert counted.truncated == 1
    with pytest.raises(DataError, match="a pair cannot be split"):
        list(of_preferences(row, CHAT, Fit(100, "split"), Cuts()))


def test_bad_rows_go_to_who_asked_for_them() -> None:
    errors: list[str] = []
    rows = placed(answered("Yes"), answered(""), answered("No"))
    found = examples(of_conversations(rows, CHAT, Fit(200), Cuts(), lambda place, error: errors.append(str(error))))
    assert [learned(e) for e in found] == [[b"Yes|"], [b"No|"]]
    assert errors == ["rows.jsonl:2: messages.1.content: an empty reply"]


@pytest.mark.parametrize("document", [Document("   "[:0]), Document("a", suffix="b")])
def test_a_document_that_cannot_be_learned_is_named(document: Document) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: "):
        list(of_documents(placed(document), CHAT.tokenizer, 8))


def test_text_that_is_not_unicode_is_named_and_its_neighbours_kept() -> None:
    errors: list[str] = []
    rows = placed(Document("a"), Document("\ud800"), Document("c"))
    found = [p.line for p, _ in of_documents(rows, CHAT.tokenizer, 8, lambda place, error: errors.append(str(error)))]
    assert found == [1, 3]
    assert len(errors) == 1
    assert "rows.jsonl:2: the text is not valid Unicode" in errors[0]
