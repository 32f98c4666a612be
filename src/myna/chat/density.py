"""How many bytes of text a tokenizer puts into a token, by kind of text. More is better: less to compute, longer to see.

Kinds are told by line, by rule of thumb: `cjk` where a third of the letters are Chinese, Japanese or Korean; `code` where a
sixth of all signs are brackets, operators and the like; `latin` where most letters are Latin; else `other`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from myna.chat.tokenizer import Tokenizer

KINDS = ("latin", "cjk", "code", "other")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_SIGNS = re.compile(r"[()\[\]{}<>=_+*/\\|&^%$#@;`]")


@dataclass
class Density:
    """Bytes and tokens of a text, by kind. `lossy`: how many stretches did not come back as they were."""

    nbytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    lossy: int = 0

    def of(self, kind: str) -> float | None:
        """Bytes a token; None where there is no text of that kind."""
        return self.nbytes[kind] / self.tokens[kind] if self.tokens[kind] else None

    @property
    def overall(self) -> float:
        return sum(self.nbytes.values()) / max(1, sum(self.tokens.values()))


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> Density:
    """Lines of one kind that follow one another are tokenized together."""
    found = Density()
    for text in texts:
        for kind, stretch in stretches(text):
            ids = tokenizer.encode(stretch)
            found.nbytes[kind] += len(stretch.encode())
            found.tokens[kind] += len(ids)
            found.lossy += tokenizer.decode(ids) != stretch
    return found


def stretches(text: str) -> Iterator[tuple[str, str]]:
    """(kind, lines). An empty line is of the kind of the line before."""
    kind = "latin"

    def kind_here(line: str) -> str:
        nonlocal kind
        kind = kind_of(line) if line.strip() else kind
        return kind

    for found, lines in groupby(text.splitlines(keepends=True), kind_here):
        yield found, "".join(lines)


def kind_of(line: str) -> str:
    seen = len(line) - line.count(" ") - line.count("\n")
    letters = sum(map(str.isalpha, line))
    if (cjk := len(_CJK.findall(line))) and cjk * 3 >= letters:
        return "cjk"
    if len(_SIGNS.findall(line)) * 6 >= seen:
        return "code"
    return "latin" if len(_LATIN.findall(line)) * 2 >= letters else "other"
