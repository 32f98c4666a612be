"""Markdown, kept as it was written: it reads well as it is. Headings are those of CommonMark (`#` and underlined), outside of code.

HTML comments, and the link definitions that people misuse as comments, do not show when the page is rendered: they are hidden text.
"""

import re

from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed

_COMMENT = re.compile(r"<!--(.*?)(?:-->|\Z)", re.DOTALL)
_AS_COMMENT = re.compile(r'^\[[^\]\n]*\]:[ ]*(?:#|<>)[ ]*["(\'](.*)["\')][ ]*$')
_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDER = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ROW = re.compile(r"^\s*\|?.*\|.*$")
_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_FRONT = re.compile(r"\A---\n(.*?)\n---(?:\n|\Z)", re.DOTALL)
_DATES = [re.compile(rf"^{key}:[ ]*[\"']?([^\n]{{1,80}}?)[\"']?[ ]*$", re.MULTILINE) for key in (
    "updated", "lastmod", "last_modified", "modified", "date", "published", "created", "更新", "日期",
)]  # fmt: skip
_TITLE = re.compile(r"^title:[ ]*[\"']?(.+?)[\"']?[ ]*$", re.MULTILINE)


def read(data: bytes, name: str) -> Parsed:
    draft = Draft("markdown")
    decoded = decode(data)
    for note in decoded.notes:
        draft.note(note)
    text = draft.clean(decoded.text)
    lines = _without_comments(draft, text).split("\n")
    front = _FRONT.match(text)
    if front:
        title = _TITLE.search(front[1])
        draft.title = title[1] if title else ""
        draft.dated(*(found[1] for key in _DATES if (found := key.search(front[1]))))
    place = draft.add("\n".join(lines))
    if place:
        _structure(draft, "\n".join(lines).strip("\n").split("\n"), place[0])
    return draft.done()


def _without_comments(draft: Draft, text: str) -> str:
    """The text outside of comments, which are hidden; code keeps what looks like one."""
    out, fence = [], ""
    for block in re.split(r"(^ {0,3}(?:`{3,}|~{3,})[^\n]*$)", text, flags=re.MULTILINE):
        mark = _FENCE.match(block)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            for comment in _COMMENT.findall(block):
                draft.hide(comment, "comment")
            block = _COMMENT.sub("", block)
            block = "\n".join(_unless_comment(draft, line) for line in block.split("\n"))
        out.append(block)
    return "".join(out)


def _unless_comment(draft: Draft, line: str) -> str:
    if match := _AS_COMMENT.match(line):
        draft.hide(match[1], "comment")
        return ""
    return line


def _structure(draft: Draft, lines: list[str], at: int) -> None:
    """Headings and tables among the lines, the first of which stands at `at`."""
    fence, table = "", None
    starts = [at]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    front = lines.index("---", 1) if lines[0] == "---" and "---" in lines[1:] else -1
    for n, line in enumerate(lines):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        if fence or mark or n <= front:
            continue
        if match := _ATX.match(line):
            draft.mark(starts[n], len(match[1]), match[2] or "")
        elif (match := _UNDER.match(line)) and n and _paragraph(lines[n - 1]) and n - 1 > front:
            draft.mark(starts[n - 1], 1 if match[1][0] == "=" else 2, lines[n - 1])
        if table is None and n and "|" in line and _RULE.match(line) and _ROW.match(lines[n - 1]):
            table = starts[n - 1]
        if table is not None and (n + 1 == len(lines) or "|" not in lines[n + 1]):
            draft.tabled((table, starts[n] + len(line)))
            table = None


def _paragraph(line: str) -> bool:
    return bool(line.strip()) and not re.match(r"\s*(?:[#>|]|[-*+][ ]|\d+[.)][ ]|    )", line)
