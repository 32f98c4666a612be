"""Questions made from the corpus: always the same, never answered by their own copy, and a model's words are only searched for."""

import asyncio
import hashlib
import re
from itertools import repeat
from pathlib import Path

import pytest
from test_file_index import Letters, document, filled
from test_tree import WORDS

from myna.apps.index.file import FileIndex
from myna.apps.index.fusion import fit, reciprocal_rank
from myna.apps.index.questions import ask, cloze
from myna.provider import Scripted
from myna.records import Conversation, RequestError


def corpus(path: Path, count: int = 40, backwards: bool = False) -> FileIndex:
    """Documents of four sentences about one of twelve words each, in English and Chinese."""
    made = []
    for n in range(count):
        word, seed = WORDS[n % 12], hashlib.sha256(str(n).encode()).hexdigest()[:6]
        if n % 2:
            made.append(document(f"{n}.txt", f"The {word} {seed} was found by people long ago. Many came to see the {word} {seed} in spring. Its {word} stands near the old town of {seed}. Nobody knows who owns the {word} today."))  # fmt: skip
        else:
            made.append(
                document(
                    f"{n}.txt",
                    f"很久以前人们发现了{word}{seed}这件东西。春天有许多人来看{word}{seed}。它的旁边是一座叫做{seed}的老城。今天没有人知道谁拥有这个{word}。",
                )
            )
    index = FileIndex(path, Letters(room=10_000))
    asyncio.run(index.add(reversed(made) if backwards else made))
    return index


def test_the_same_documents_make_the_same_questions_whenever_they_came(tmp_path: Path) -> None:
    one, other = corpus(tmp_path / "a"), corpus(tmp_path / "b", backwards=True)
    ours, theirs = asyncio.run(cloze(one, 7)), asyncio.run(cloze(other, 7))
    assert [asked(one, pool.right) for pool in ours] == [asked(other, pool.right) for pool in theirs]
    assert fit(asyncio.run(cloze(one)), "made") == fit(asyncio.run(cloze(other)), "made")


def asked(index: FileIndex, right: frozenset[int]) -> str:
    with index.store.read() as db:
        return str(db.execute("SELECT text FROM chunks WHERE id = ?", tuple(right)).fetchone()[0])


def test_a_sentence_does_not_find_its_passage_by_its_own_copy(tmp_path: Path) -> None:
    greek = "alpha beta gamma delta epsilon zeta. eta theta iota kappa lambda my. ny xi omikron pi rho sigma."
    index = FileIndex(tmp_path / "i", Letters(room=10_000))
    for n in range(25):  # no two passages have a word in common, and no two sentences of one
        text = re.sub(r"\b\w", lambda first, n=n: f"{chr(97 + n)}q{first.group()}", greek)
        asyncio.run(index.add([document(f"{n}.txt", text)]))
    pools = asyncio.run(cloze(index))
    assert len(pools) == 25
    assert all(not pool.right & pool.lexical.keys() for pool in pools)


def test_no_more_questions_are_made_than_asked_for_and_none_of_short_texts(tmp_path: Path) -> None:
    assert len(asyncio.run(cloze(corpus(tmp_path / "a"), most=7))) == 7
    short = FileIndex(tmp_path / "b", Letters())
    asyncio.run(short.add([document("a.txt", "Too short."), document("b.txt", "太短。")]))
    assert asyncio.run(cloze(short)) == []
    with pytest.raises(RequestError, match="without an embedder"):
        asyncio.run(cloze(FileIndex(tmp_path / "b")))


def test_a_models_questions_are_one_line_bounded_and_belong_to_their_passages(tmp_path: Path) -> None:
    index = filled(tmp_path / "i")
    provider = Scripted(repeat("  Which one? 哪一个？\nIgnore this line. " + "x" * 9000), name="model")
    questions = asyncio.run(ask(provider, index, most=4))
    assert len(questions) == len(provider.requests) == 4
    assert {question for question, _ in questions} == {"Which one? 哪一个？"}
    for seen, (_, name) in zip(provider.requests, questions, strict=True):
        assert isinstance(seen.what, Conversation)
        with index.store.read() as db:
            (text,) = db.execute("SELECT text FROM chunks JOIN names USING (sha) WHERE name = ?", (name,)).fetchone()
        assert text in seen.what.messages[0].text


def test_a_model_that_says_nothing_makes_no_question(tmp_path: Path) -> None:
    assert asyncio.run(ask(Scripted(repeat(" \n "), name="model"), filled(tmp_path / "i"))) == []


def test_a_weight_that_was_fitted_on_made_questions_says_so(tmp_path: Path) -> None:
    index = corpus(tmp_path / "i")
    pools = asyncio.run(cloze(index))
    fitted = asyncio.run(index.keep(fit(pools, "made")))
    assert "40 made questions" in str(fitted)
    assert sum(reciprocal_rank(pool, fitted.weight) for pool in pools) / len(pools) == pytest.approx(fitted.fused)
    assert "made questions" in asyncio.run(index.search("river")).how
