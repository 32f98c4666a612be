"""Inputs on the command line: NAME=VALUE and NAME=@FILE."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from myna.records import DataError, RequestError


def named_values(values: Iterable[str], is_text: Callable[[str], bool]) -> dict[str, Any]:
    """Inputs by name: what `is_text` as it stands, all else as JSON. Raises RequestError and DataError, naming which."""
    given: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise RequestError(f"--value {value[:60]!r}: give NAME=VALUE or NAME=@FILE", param="value")
        if text.startswith("@"):
            try:
                text = Path(text[1:]).read_text(encoding="utf-8")
            except (OSError, ValueError) as e:
                raise DataError(f"{text[1:]}: cannot be read: {getattr(e, 'strerror', None) or e}") from None
        given[name] = text
        if not is_text(name):
            try:
                given[name] = orjson.loads(text)
            except orjson.JSONDecodeError as e:
                raise RequestError(f"inputs.{name}: is not JSON: {e}", param=f"inputs.{name}") from None
    return given
