"""CSV and TSV: data, one record a line.

A record is written as `column: value; column: value`, because a piece of a long table is read without its head: a search finds
"city: 北京" and whoever reads the piece knows what the figure means. Empty cells are left out. (Small tables within documents stay
tables: apps/index/draft.py.) Very wide tables would repeat their head a thousand times: they keep plain rows, which is noted.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence

from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft, Unreadable
from myna.apps.index.parsed import Parsed

WIDE = 200  # columns; more keep plain rows
CELL = 1 << 20  # characters of one cell
_DELIMITERS = ",\t;|"
_LOOK = 20  # lines that tell the delimiter


def read(data: bytes, name: str) -> Parsed:
    draft = Draft("table")
    decoded = decode(data)
    for note in decoded.notes:
        draft.note(note)
    csv.field_size_limit(CELL)
    try:
        delimiter = "\t" if name.lower().endswith((".tsv", ".tab")) else _delimiter(decoded.text)
        rows = list(csv.reader(io.StringIO(decoded.text.replace("\x00", ""), newline=""), delimiter=delimiter))
    except csv.Error as problem:
        raise Unreadable(f"its table cannot be read: {problem}") from None
    draft.tabled(draft.add(records(draft, rows)))
    return draft.done()


def _delimiter(text: str) -> str:
    """The character that splits the first lines into the same number of cells, two or more."""
    lines = text.lstrip().splitlines()[:_LOOK] if len(text) < CELL else text[:CELL].splitlines()[:_LOOK]
    best = (0, 0, ",")
    for place, delimiter in enumerate(_DELIMITERS):
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if len(row) > 1)
        if widths:
            best = max(best, (widths.most_common(1)[0][1], -place, delimiter))
    return best[2]


def has_head(rows: Sequence[Sequence[str]]) -> bool:
    """The first row names columns: two or more and most of them, none twice, none a number, and there are rows below."""
    if len(rows) < 2:
        return False
    names = [cell for cell in rows[0] if cell]
    few = len(names) < 2 or 2 * len(names) < len(rows[0])
    return not few and len(set(names)) == len(names) and not any(map(_number, names))


def _number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True


def records(draft: Draft, rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of which may name the columns, as one line each."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    if width > WIDE:
        draft.note(f"{width:,} columns: rows are kept without the names of their columns")
    if width > WIDE or not has_head(rows):
        return "\n".join("; ".join(filter(None, row)) for row in rows)
    head, *body = rows
    if not body:
        return "; ".join(head)
    ragged = sum(len(row) > len(head) for row in body)
    if ragged:
        draft.count("rows longer than the head", ragged)
    return "\n".join(_record(head, row) for row in body)


def _record(head: Sequence[str], row: Sequence[str]) -> str:
    named = [f"{name}: {cell}" if name else cell for name, cell in zip(head, row, strict=False) if cell]
    return "; ".join([*named, *filter(None, row[len(head) :])])
