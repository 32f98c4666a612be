"""Arguments that are not written as one JSON object: members one by one, values as text or as Python has them."""

import ast
import json

from myna.chat.calls import quoted
from myna.chat.scan import Scanner
from myna.chat.values import MAX_DEPTH, decode, depth
from myna.records import Json

LONGEST = 20_000  # characters of a Python value that we look into; what is longer stays text


class Members:
    """The arguments of a call that has begun, as JSON, member by member."""

    def __init__(self, scan: Scanner, schema: Json | None):
        self._scan = scan
        properties = (schema or {}).get("properties")
        self._properties: Json = properties if isinstance(properties, dict) else {}
        self._before = "{"
        self.count = 0

    def add(self, key: str, value: str) -> None:
        """`value` is JSON text."""
        self._scan.write(f"{self._before}{quoted(key)}: {value}")
        self._before = ", "
        self.count += 1

    def add_text(self, key: str, text: str) -> None:
        """`text` is the value as written; the schema says whether that is a string."""
        self.add(key, typed(text, self._properties.get(key)))

    def name_of(self, position: int) -> str:
        """The name of an argument given by its position."""
        names = list(self._properties)
        return names[position] if position < len(names) else f"argument_{position + 1}"

    def close(self) -> None:
        self._scan.write("}" if self.count else "{}")


def typed(text: str, schema: object) -> str:
    """The JSON of a value written as bare text: JSON where the schema asks for more than a string and it is JSON."""
    kinds = schema.get("type") if isinstance(schema, dict) else None
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds == ["string"] or (isinstance(schema, dict) and _only_strings(schema.get("enum"))):
        return quoted(text)
    value = decode(text)
    is_json = (value is not None or text.strip() == "null") and not (isinstance(value, str) and "string" in kinds)
    return text.strip() if is_json else quoted(text)


def _only_strings(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def from_python(text: str) -> str:
    """The JSON of a Python literal, of JSON's own words too; what is neither is a string, as written."""
    text = text.strip()
    if len(text) <= LONGEST and depth(text) <= MAX_DEPTH:
        try:
            found = json.dumps(ast.literal_eval(text), ensure_ascii=False, allow_nan=False)
            found.encode()
            return found
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    return text if decode(text) is not None or text == "null" else quoted(text)
