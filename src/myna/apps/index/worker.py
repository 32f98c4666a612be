"""The child that reads documents, one after the other, within limits of its own.

A document is a stranger's: reading it may take for ever, all memory, or the process. The child opens no file and writes none: it gets
the bytes, and gives back what it read.

    parent:  {"name": ..., "size": n}\\n and n bytes
    child:   {"read": {...}}\\n  |  {"unreadable": why}\\n  |  {"failed": why}\\n        (the first line of all is "ready")
"""

import gc
import os
import resource
import sys
from dataclasses import fields
from typing import Any

import orjson

from myna.apps.index.draft import Unreadable
from myna.apps.index.parsed import Page, Parsed, Section


def main(memory: int) -> None:
    """Documents from standard input until it ends. `memory`: bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        question = orjson.loads(line)
        out.write(_answer(sys.stdin.buffer.read(question["size"]), question["name"]) + b"\n")
        out.flush()


def _answer(data: bytes, name: str) -> bytes:
    from myna.apps.index.readers import read

    try:
        return orjson.dumps({"read": to_json(read(data, name))})
    except Unreadable as problem:
        return orjson.dumps({"unreadable": str(problem)})
    except MemoryError:
        gc.collect()
        return orjson.dumps({"failed": "it takes more memory than allowed"})
    except RecursionError:
        return orjson.dumps({"unreadable": "it is nested too deeply"})
    except ImportError as problem:
        return orjson.dumps({"failed": str(problem)})
    except Exception as problem:
        what = f"{type(problem).__name__}: {problem}".encode("utf-8", "replace").decode()
        return orjson.dumps({"failed": f"its reader failed: {what[:500]}"})


def to_json(parsed: Parsed) -> dict[str, Any]:
    """A Parsed as JSON; tuples are lists, pages and sections lists of their fields."""
    out = {field.name: getattr(parsed, field.name) for field in fields(parsed) if field.init}
    out["sections"] = [(s.title, s.level, s.parent, s.start, s.end) for s in parsed.sections]
    out["pages"] = [(p.number, p.start, p.end, p.name) for p in parsed.pages]
    return out


def from_json(value: dict[str, Any]) -> Parsed:
    """The Parsed again, its laws checked. Raises ValueError, TypeError, KeyError for what is none."""
    return Parsed(
        text=str(value["text"]),
        sections=tuple(Section(*section) for section in value["sections"]),
        pages=tuple(Page(*page) for page in value["pages"]),
        title=str(value["title"]),
        kind=str(value["kind"]),
        notes=tuple(map(str, value["notes"])),
        hidden=tuple((int(a), int(b)) for a, b in value["hidden"]),
        tables=tuple((int(a), int(b)) for a, b in value["tables"]),
        needs_ocr=tuple(map(int, value["needs_ocr"])),
        date=str(value.get("date", "")),  # Qdrant has documents from before there were dates
    )
