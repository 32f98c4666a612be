"""myna extract: fields out of documents, each with the words that it rests on."""

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console

from myna.commands.options import folded, hint, printable, spoken
from myna.commands.spend import Spend, SpendFlags
from myna.commands.trace import TraceFile, opened
from myna.modeldir import DEFAULT
from myna.provider.budget import BudgetExceeded
from myna.records import DataError, DocumentError
from myna.records.jsonl import unopened

if TYPE_CHECKING:
    from myna.apps.answers.extract import Extracted
    from myna.apps.index.reading import Document
    from myna.provider import Provider


def run(
    schema: Path,
    /,
    *files: Path,
    model: str = DEFAULT,
    windows: int | None = None,
    spend: SpendFlags = Spend(),
    json: bool = False,
    trace: TraceFile = None,
) -> None:
    """Fill in the fields of a JSON Schema from documents, PDF to plain text. Every value is shown with the document's own words; a value
    that they do not have is not filled in, and said. Exit status 1 where a document does not give what the schema needs, cannot be read, or
    takes more than its budget.

    Parameters
    ----------
    schema
        A JSON Schema of an object with properties, in a file.
    files
        Documents.
    model
        Who reads them: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN.
    windows
        Parts of 12,000 characters that are read of each document, at most; 4 if left out. What is behind them is counted.
    json
        One JSON object for each document.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.answers.extract import WINDOWS
    from myna.apps.index.reading import Reader
    from myna.provider.connect import connected

    fields = _schema(schema)
    spend.budget()  # what is no amount is said before a model is loaded
    if not files:
        raise DataError("name at least one document.")
    if (most := WINDOWS if windows is None else windows) < 1:
        raise DataError("--windows is 1 or more.")
    whole = True
    with connected(model) as provider, Reader() as reader:
        hint(provider, model)
        for path in files:
            try:
                document = reader.read(path)
                found = _extracted(provider, document, fields, most, spend, trace)
            except (DocumentError, BudgetExceeded) as e:
                about = "" if isinstance(e, DocumentError) else f"{path}: "
                print(f"myna: {spoken(about + str(e))}", file=sys.stderr)
                whole = False
                continue
            whole &= found.value is not None
            if json:
                print(orjson.dumps({"name": document.name, **asdict(found)}).decode())
            else:
                _print(document.name, found)
    if not whole:
        sys.exit(1)


def _schema(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as e:
        raise DataError(unopened(path, e)) from None
    except orjson.JSONDecodeError as e:
        raise DataError(f"{path} is no JSON, which a schema is written in: {e}") from None
    except OSError as e:
        raise DataError(f"{path}: {e}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON Schema of an object is needed")
    return found


def _extracted(
    provider: "Provider",
    document: "Document",
    schema: dict[str, Any],
    windows: int,
    spend: Spend,
    trace: Path | None,
) -> "Extracted":
    from myna.apps.answers.extract import CALLS, extract

    kept = opened(trace, new=True)
    with kept.span("extract", Path(document.name).name, sha256=document.sha256) as span:
        asked = spend.within(provider, kept, windows * CALLS)
        found = asyncio.run(extract(asked, document, schema, windows=windows))
        doubts = [f"{one.path}: {one.doubt}" for one in found.fields if one.doubt]
        share = 1 - len(doubts) / len(found.fields) if found.fields else 0.0
        span.check("evidence", not doubts, share, "; ".join(doubts)[:500])
        span.note(problems=list(found.problems), left_out=found.left_out)
    return found


def _print(name: str, found: "Extracted") -> None:
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(printable(name), style="bold")
    table = folded("field", "value", "where", "words")
    for one in found.fields:
        where = "" if one.start is None else f"{f'page {one.page}, ' if one.page else ''}{one.start}-{one.end}"
        words = f"[?] {one.doubt}" if one.doubt else " ".join(one.text.split())
        table.add_row(
            *(printable(text) for text in (one.path, "" if one.value is None else str(one.value), where, words))
        )
    screen.print(table)
    for problem in found.problems:
        screen.print(printable(problem), style="yellow")
    if found.left_out:
        screen.print(f"{found.left_out:,} characters were not read; --windows reads more", style="yellow")
