"""Where words stand in a text, exactly: a quote that is looked up before it is believed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARKS = "\"'“”‘’「」『』《》«»` "  # around a quote, and no part of it
# A word, a number, white space, or one other character: scripts without spaces have a word at each.
CHUNK = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|\d+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Quote:
    """`evidence[source][start:end] == text`."""

    source: int
    start: int
    end: int
    text: str


def locate(text: str, evidence: Sequence[str]) -> Quote | None:
    """Where these words stand, exactly, in the first evidence that has them; None where none does. They are whole words: "30" is no quote
    of "308 points". White space is as good as any other, since lines of a page end where they end. Marks around a quote are not part of it, unless the evidence has them, too; marks alone are no quote."""
    for said in dict.fromkeys((text.strip(), text.strip(MARKS + "\n\t"))):
        if not said.strip(MARKS + "….。,，、"):
            continue
        words = re.compile(r"\s+".join(map(re.escape, said.split())))
        for source, whole in enumerate(evidence):
            for found in words.finditer(whole):
                if not _within_word(whole, found.start()) and not _within_word(whole, found.end()):
                    return Quote(source, found.start(), found.end(), found[0])
    return None


def _within_word(text: str, at: int) -> bool:
    """Whether a word or a number goes on across this place. Scripts without spaces have no such places but in numbers."""
    return 0 < at < len(text) and len(CHUNK.match(text[at - 1 : at + 1])[0]) == 2 and not text[at].isspace()  # type: ignore[index]
