"""Arguments that are not written as one JSON object: members one by one, values as text or as Python has them."""

import ast
import json
from collections.abc import Iterator
from typing import Any

from myna.chat.calls import quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.chat.values import MAX_DEPTH, decode, depth
from myna.records import ChatError, Json, Style, ToolCall

LONGEST = 20_000  # characters of a Python value that we look into; what is longer stays text
BLANKS = " \t\n\r"  # JSON's
LINKS = 16  # references and alternatives inside one another that are followed to a type
Kinds = frozenset[str]
"""JSON's types; an integer is a number."""
STRING: Kinds = frozenset({"string"})

_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


class Members:
    """The arguments of a call that has begun, as JSON, member by member.

    frame    what a dialect puts around a value written as text, on either side
    """

    def __init__(self, scan: Scanner, schema: Json | None, frame: str = ""):
        self._scan = scan
        self._names = [*_properties(schema or {})]
        self._kinds = kinds(schema or {})
        self._frame = frame
        self._before = "{"
        self.count = 0

    def add(self, key: str, value: str) -> None:
        """`value` is JSON text."""
        self._scan.write(f"{self._before}{quoted(key)}: {value}")
        self._before = ", "
        self.count += 1

    def add_upto(self, key: str, closer: str) -> Steps[bool]:
        """Read a value written as text, and what closes it. Whether that came; if not, nothing is added."""
        scan, kinds = self._scan, self._kinds.get(key)
        if kinds != STRING:  # of JSON the closer may be a part, in a string
            scan.note()
            yield from scan.blank()
            if (yield from scan.peek()) in ("{", "[", '"'):
                text, _ = yield from scan.value()
                yield from scan.blank()
                if _is_json(text, kinds) and (yield from scan.take(closer)):
                    scan.drop()
                    self.add(key, text)
                    return True
            scan.rewind()
        text, mark = yield from scan.before(closer)
        if mark:
            self.add(key, typed(text.removeprefix(self._frame).removesuffix(self._frame), kinds))
        return bool(mark)

    def name_of(self, position: int) -> str:
        """The name of an argument given by its position."""
        return self._names[position] if position < len(self._names) else f"argument_{position + 1}"

    def close(self) -> None:
        self._scan.write("}" if self.count else "{}")


def typed(text: str, kinds: Kinds | None) -> str:
    """The JSON of a value written as bare text: JSON where it may be more than a string and is JSON. What is no string may also be
    written as Python has it: the templates of Qwen3.5 and Nemotron write True."""
    if _is_json(text, kinds):
        return text.strip(BLANKS)
    return quoted(text) if kinds is None or "string" in kinds else from_python(text)


def _is_json(text: str, kinds: Kinds | None) -> bool:
    """Whether a text is the JSON of a value. Where it may be a string, JSON of another type that it may not have is one."""
    value = decode(text)
    if value is None and text.strip(BLANKS) != "null":
        return False
    return kinds is None or "string" not in kinds or _KINDS[type(value)] in kinds - STRING


def kinds(schema: Json) -> dict[str, Kinds]:
    """The types that a tool's arguments may have, as far as its schema says so in plain words."""
    found = {name: _kinds(one, schema, LINKS) for name, one in _properties(schema).items()}
    return {name: kinds for name, kinds in found.items() if kinds}


def _properties(schema: Json) -> Json:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _kinds(schema: Any, root: Json, links: int) -> Kinds | None:
    """None: any, or nothing that is said plainly. More than there are is no harm."""
    if not isinstance(schema, dict) or not links:
        return None
    if "const" in schema or isinstance(schema.get("enum"), list):
        return frozenset(_KINDS[type(value)] for value in schema.get("enum") or [schema.get("const")])
    if names := schema.get("type"):
        return frozenset("number" if name == "integer" else str(name) for name in _listed(names))
    if isinstance(path := schema.get("$ref"), str):
        return _kinds(_followed(path, root), root, links - 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(key), list):
            found = [_kinds(branch, root, links - 1) for branch in branches]
            return None if None in found else frozenset().union(*(kinds for kinds in found if kinds))
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _followed(path: str, root: Any) -> Any:
    """What a reference inside the schema refers to: a JSON Pointer (RFC 6901)."""
    place, *steps = path.split("/")
    for step in steps if place == "#" else ():
        root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root if place == "#" else None


def from_python(text: str) -> str:
    """The JSON of a Python literal, of JSON, or of both mixed; what is neither is a string, as written."""
    text = text.strip()
    if decode(text) is not None or text == "null":
        return text
    if len(text) <= LONGEST and depth(text) <= MAX_DEPTH:
        try:
            value = ast.literal_eval(_Words().visit(ast.parse(text, mode="eval")))
            found = json.dumps(value, allow_nan=False)  # in ASCII: halves of a character, written one by one, join
            return json.dumps(json.loads(found), ensure_ascii=False) if decode(found) is not None else found
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    return quoted(text)


class _Words(ast.NodeTransformer):
    """JSON's words in Python."""

    KNOWN = {"true": True, "false": False, "null": None}  # noqa: RUF012

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.KNOWN[node.id]) if node.id in self.KNOWN else node


def members_of(call: ToolCall) -> dict[str, Any]:
    """A call's arguments by name. ChatError where they are no JSON object."""
    value = decode(call.arguments)
    if not isinstance(value, dict):
        raise ChatError(f"the arguments of {call.name!r} are no JSON object: {call.arguments[:80]!r}")
    return value


def written(style: Style, call: ToolCall) -> Iterator[str]:
    """A call's arguments one by one, in pieces."""
    for i, (key, value) in enumerate(members_of(call).items()):
        yield style.comma if i else ""
        yield style.before
        yield Own(key)
        yield style.between
        yield from _pieces(style, value)
        yield style.after


def _pieces(style: Style, value: object) -> Iterator[str]:
    if style.values == "python":
        yield Own(repr(value))
    elif style.values == "text":
        yield Own(_plain(value))
    elif isinstance(value, str):
        yield style.quote
        yield Own(value)
        yield style.quote
    elif isinstance(value, list):
        yield Own("[")
        for i, item in enumerate(value):
            yield Own("," if i else "")
            yield from _pieces(style, item)
        yield Own("]")
    elif isinstance(value, dict):
        yield Own("{")
        for i, (key, item) in enumerate(value.items()):
            yield Own(f"{',' if i else ''}{key}:")
            yield from _pieces(style, item)
        yield Own("}")
    else:
        yield Own(json.dumps(value))


def _plain(value: object) -> str:
    """A value as bare text: a string as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
