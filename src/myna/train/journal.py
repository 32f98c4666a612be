"""What was asked of a provider so far: one line a question, in order, so that work that was cut short goes on where it was."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from myna.records import Conversation, DataError, Json


class Journal:
    """OUT.journal. Its first line says what the rest was made of; with anything else it is refused."""

    def __init__(self, out: Path, mark: Json):
        self.path = out.with_name(out.name + ".journal")
        self.rows: list[Conversation] = []
        if self.path.exists():
            self._read(mark)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write([{"mark": mark}])

    def add(self, rows: Sequence[Conversation]) -> None:
        """At once on disk."""
        self._write(row.to_json() for row in rows)
        self.rows += rows

    def close(self) -> None:
        """The work is done, and its result is elsewhere."""
        self.path.unlink()

    def _read(self, mark: Json) -> None:
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]  # a kill may have cut the last line
        try:
            first, *rest = (json.loads(line) for line in whole.splitlines())
            found, self.rows = first["mark"], [Conversation.from_json(row) for row in rest]
        except (ValueError, TypeError, KeyError) as e:
            raise DataError(f"{self.path} cannot be read: {e}. Remove it to begin anew.") from None
        if found != mark:
            other = sorted(name for name in {*mark, *found} if mark.get(name) != found.get(name))
            raise DataError(f"{self.path} was begun with another {', '.join(other)}. Go on as it began, or remove it.")
        if len(whole) < len(text):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def _write(self, rows: Iterable[Json]) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def digest(rows: Iterable[Conversation]) -> str:
    """Of what is asked."""
    found = hashlib.blake2b(digest_size=16)
    for row in rows:
        found.update(orjson.dumps(row.to_json()))
    return found.hexdigest()
