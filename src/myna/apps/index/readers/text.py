"""Plain text. A form feed ends a page, as in RFCs; lines such as 第三回 and "Chapter 3" begin chapters."""

import re

from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed

_CHAPTER = re.compile(
    r"^[ \t\u3000]*(第[零〇一二三四五六七八九十百千两\d]{1,8}[卷部篇編编]|(?:Part|PART|Book|BOOK) (?:[IVXLC]+|\d+)\b)?"
    r"[ \t\u3000]*(第[零〇一二三四五六七八九十百千两\d]{1,8}[章回节節]|(?:Chapter|CHAPTER) (?:[IVXLC]+|\d+)\b)?.{0,50}$",
    re.MULTILINE,
)


def read(data: bytes, name: str) -> Parsed:
    draft = Draft("text")
    decoded = decode(data)
    for note in decoded.notes:
        draft.note(note)
    pages = decoded.text.split("\f")
    for page in pages:
        if len(pages) > 1:
            draft.page()
        _chapters(draft, page)
    return draft.done()


def _chapters(draft: Draft, page: str) -> None:
    text = draft.clean(page).strip("\n")
    place = draft.add(text)
    if not place:
        return
    for match in _CHAPTER.finditer(text):
        if match[1] or match[2]:
            draft.mark(place[0] + match.start(), 1 if match[1] else 2, match[0])
