"""What a model said, as sentences with what they cite. Numbers that were not given are taken out and told; of every citation that stays
there are the very words of the document, and where they stand."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from myna.apps.answers.passages import NONE, UNSUPPORTED, Passage
from myna.apps.index.dates import Dated
from myna.apps.index.index import Hit
from myna.apps.index.parsed import Parsed, Range
from myna.checks.folded import fold, plain
from myna.checks.grounding import Evidence, numbers, unsupported, words
from myna.checks.sentences import sentences

LEAST = 0.5  # of a sentence's words that its passages must have; all its numbers and names must be there
MOVED = 0.8  # that another passage must have, for the citation to be moved to it
SHORT = 3  # different words of an answer that may well stand in several passages
# [1], [1, 2], [1-3], [^1], [source 1], and the same in 【】 and ［］.
MARK = re.compile(r"[\[【［〔]\s{0,3}([^\[\]【】［］〔〕\n]{0,60})\s{0,3}[\]】］〕]")
BETWEEN = re.compile(r"(?i:passages?|sources?|documents?|docs?|and)\b|段落|来源|文档|资料|[\s,，、;；和与^#:：]+")
NUMBER = re.compile(r"([0-9０-９]{1,6})(?:[-–~～至到]([0-9０-９]{1,6}))?")
ROUND = re.compile(r"[(（]([1-9])[)）](?=\s*(?:[;；,，.。]|\[|\Z))")  # (2), where a mark would stand
RANGE = 20  # numbers of [1-20], at most
# What ends a sentence or a clause of it, and stands after the mark: "… by Lund [1]. It …"
REST = re.compile(r"[ \t]*(?:[.,](?!\d)|[。，、；：！？…;:!?])+[\"'”’」』)）]*")
ENDED = ".。!！?？…；;"
DASHES = (UNSUPPORTED, "-", "–")
BARE = " \t\n.。\"'“”*`"


@dataclass(frozen=True, slots=True)
class Source:
    """The words that a sentence rests on: `text` is the document's text from `start` to `end`, exactly."""

    number: int  # the passage's
    name: str
    title: str
    page: int | None
    path: tuple[str, ...]
    sha256: str
    start: int
    end: int
    text: str
    dated: Dated | None = None  # when the document is from


@dataclass(frozen=True, slots=True)
class Sentence:
    """text        as it was said, without marks
    cited       numbers of passages, each of them given
    unsupported why nobody should rely on it, "" where its passages have its words, numbers and names
    denied      the model said itself that no passage says it
    moved       we cite, where the model cited nothing, denied it, or cited a passage that does not say it
    """

    text: str
    cited: tuple[int, ...]
    unsupported: str = ""
    denied: bool = False
    moved: bool = False


def read(said: str, passages: Sequence[Passage]) -> tuple[tuple[Sentence, ...], tuple[str, ...]]:
    """(sentences, marks that were taken out because they name nothing that was given). Nothing said, NONE, or numbers of
    passages that the model itself says are in none, is no sentence."""
    if said.strip(BARE).upper() in ("", NONE):
        return (), ()
    given = {one.number for one in passages}
    # Held to words before a bracket, a small model writes (2) for [2].
    said = ROUND.sub(lambda mark: f"[{mark[1]}]" if int(mark[1]) in given else mark[0], said)
    found: list[Sentence] = []
    removed: list[str] = []
    since = start = 0  # the first sentence after the last mark; where the text goes on
    for mark in MARK.finditer(said):
        if (names := _names(mark[1])) is None:
            continue  # brackets that are part of what is said
        if fresh := _sentences(said[start : mark.start()]):
            since = len(found)
            found += fresh
        start = mark.end()
        if found and (rest := REST.match(said, start)):
            if found[-1].text[-1] not in ENDED:
                found[-1] = replace(found[-1], text=found[-1].text + rest[0].strip())
            start = rest.end()
        numbers = [number for name in names if name not in DASHES for number in _numbers(name)]
        removed += [str(number) for number in numbers if number not in given]
        for i in range(since, len(found)):  # a mark is for all that was said since the one before it
            known = (*found[i].cited, *(number for number in numbers if number in given))
            denied = not known and any(name in DASHES for name in names)
            found[i] = replace(found[i], cited=tuple(dict.fromkeys(known)), denied=denied)
    found += _sentences(said[start:])
    return tuple(one for one in found if not _is_counting(one, given)), tuple(removed)


def without_marks(said: str) -> tuple[str, tuple[str, ...]]:
    """(what was said where nothing was given to cite, the marks that were taken out of it)."""
    marks = [mark for mark in MARK.finditer(said) if _names(mark[1]) is not None]
    for mark in reversed(marks):
        said = said[: mark.start()].rstrip(" ") + said[mark.end() :]
    return said.strip(), tuple(mark[1].strip() for mark in marks)


def _is_counting(one: Sentence, given: Collection[int]) -> bool:
    """ "1; 2; 3; [—]": a small model that may not begin with a bracket counts the passages where it should have written NONE."""
    numbers = {int(number) for number in re.findall(r"[0-9]{1,6}", one.text)}
    return one.denied and numbers <= set(given) and not any(letter.isalpha() for letter in one.text)


def _names(inside: str) -> list[str] | None:
    """What stands between two brackets, if it is what citations are made of."""
    names = [name for name in BETWEEN.split(inside) if name]
    return names if all(name in DASHES or NUMBER.fullmatch(name) for name in names) else None


def _numbers(name: str) -> list[int]:
    first, last = re.fullmatch(NUMBER, name).groups()  # type: ignore[union-attr]
    if last is None:
        return [int(first)]
    return [*range(int(first), min(int(last), int(first) + RANGE - 1) + 1)] or [int(first), int(last)]


def _sentences(text: str) -> list[Sentence]:
    return [Sentence(text[a:b], ()) for a, b in sentences(text) if text[a:b].strip(BARE).upper() not in ("", NONE)]


def weighed(found: Sequence[Sentence], passages: Sequence[Passage], question: str = "") -> tuple[Sentence, ...]:
    """Each with why it is not supported, if it is not: a number, a name or most of its words are in none of its passages. Citations of
    others than these are dropped.

    Where another has all of it, the citation is moved there: a model that found the words often miscounts the passages. Of several that
    have it, it is the one that has most of the question's words; a few words that are an answer stand in many.
    """
    known = {one.number: _evidence(one.hit.text) for one in passages}
    asked = set(words(plainly(question)))
    shares = {number: len(asked & evidence.words) for number, evidence in known.items()}
    return tuple(_weighed(one, known, shares) for one in found)


def _weighed(one: Sentence, known: Mapping[int, Evidence], shares: Mapping[int, int]) -> Sentence:
    one = replace(one, cited=tuple(number for number in one.cited if number in known))
    cited = [known[number] for number in one.cited]
    together = _evidence("\n".join(evidence.text for evidence in cited))
    uncited = "the model says that no passage says it" if one.denied else "no passage is cited"
    why = unsupported(one.text, together, LEAST) if cited else uncited
    if not why and len(_own(one.text)) > SHORT:
        return one
    having = [number for number, evidence in known.items() if unsupported(one.text, evidence, MOVED) == ""]
    best = max(having, key=lambda number: (shares[number], number in one.cited, -number), default=None)
    if best is not None and (why or shares[best] > max(shares[number] for number in one.cited)):
        return replace(one, cited=(best,), moved=True)
    return replace(one, unsupported=f"not in the passage: {why}" if cited else why) if why else one


def _evidence(text: str) -> Evidence:
    """What a passage says. The number of a citation in it is no number that it states: who copies it as an answer is not supported."""
    bare = MARK.sub(lambda mark: mark[0] if _names(mark[1]) is None else " ", text)
    return replace(Evidence.of(text), numbers=frozenset(value for value, _ in numbers(bare)))


def sources(
    found: Sequence[Sentence], passages: Sequence[Passage], documents: Mapping[int, Parsed]
) -> tuple[Source, ...]:
    """For each passage that a sentence cites the words of it that the sentences rest on, in the order of their numbers.
    `documents` by the passages' numbers."""
    made = []
    for passage in passages:
        resting = [one.text for one in found if passage.number in one.cited]
        document = documents[passage.number]
        for start, end in dict.fromkeys(_words_for(text, passage.hit, document) for text in resting):
            page = document.page_at(start)
            made.append(
                Source(
                    passage.number, passage.hit.names[0], document.title, page.number if page else None, passage.hit.path,
                    passage.hit.sha256, start, end, document.text[start:end], passage.hit.dated,
                )
            )  # fmt: skip
    return tuple(made)


def _words_for(said: str, hit: Hit, document: Parsed) -> Range:
    """The sentence of the passage that has most of what was said; the whole passage where none has any."""
    wanted = _own(said)
    start, end = hit.start, hit.end
    best, place = 0, (start, end)
    for a, b in document.spans(start, end):
        for first, last in sentences(document.text[a:b]):
            shared = len(wanted & _own(document.text[a + first : a + last]))
            if shared > best:
                best, place = shared, (a + first, a + last)
    return place


def _own(text: str) -> set[object]:
    return {*words(plainly(text)), *(value for value, _ in numbers(text))}


def plainly(text: str) -> str:
    """As evidence is read: half width, lower case."""
    return fold(text, plain).text


def marked(found: Sequence[Sentence]) -> str:
    """The answer with its marks: [1] for a passage, [—] after what nobody should rely on."""
    said = []
    for one in found:
        marks = "".join(f"[{number}]" for number in one.cited) + (f"[{UNSUPPORTED}]" if one.unsupported else "")
        said.append(f"{one.text}{'' if one.text[-1:] in '。！？；' else ' '}{marks}".rstrip())
    return "\n".join(said) if any("\n" in one.text for one in found) else " ".join(said)
