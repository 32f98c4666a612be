"""The schemas of an OpenAPI document as JSON Schema: what they refer to comes along in `$defs`, and OpenAPI 3.0's own words (nullable,
exclusiveMinimum: true) become JSON Schema's (OpenAPI 3.0.3, section "Schema Object"; 3.1 is JSON Schema already)."""

from typing import Any

from myna.records import DataError, Json

MOST_PARTS = 5_000  # objects and lists of one tool's schema
DEEPEST = 60
MOST_HOPS = 20  # from one reference to the next
# Annotations that cost tokens and bind nobody, or that only OpenAPI knows.
DROPPED = {"example", "xml", "externalDocs", "discriminator", "deprecated", "nullable", "readOnly", "writeOnly"}
NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}  # name -> schema
VALUES = {"default", "const", "enum", "examples", "required"}


def look_up(document: Json, ref: object, where: str) -> Any:
    """What a local reference, "#/components/...", stands for. Raises DataError for any other, and for one that leads nowhere."""
    for _ in range(MOST_HOPS):
        if not isinstance(ref, str) or not ref.startswith("#/"):
            raise DataError(f"{where}: $ref {str(ref)[:100]!r} leads out of the document; only #/... is followed")
        node: Any = document
        for part in ref[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or name not in node:
                raise DataError(f"{where}: $ref {ref[:100]!r} leads nowhere")
            node = node[name]
        if not (isinstance(node, dict) and isinstance(node.get("$ref"), str)):
            return node
        ref = node["$ref"]
    raise DataError(f"{where}: $ref goes in a circle")


def resolve(document: Json, node: Any, where: str) -> Any:
    """The node itself, or what it refers to."""
    return look_up(document, node["$ref"], where) if isinstance(node, dict) and "$ref" in node else node


class Schemas:
    """Copies the schemas of one tool. Raises DataError when they are larger than MOST_PARTS or deeper than DEEPEST."""

    def __init__(self, document: Json, where: str):
        self._document, self._where = document, where
        self._names: dict[str, str] = {}  # reference -> its name in $defs
        self._todo: list[str] = []
        self._parts = 0
        self.defs: Json = {}

    def take(self, schema: Any) -> Any:
        """The schema with references into `defs`, which is complete when this returns."""
        taken = self._copy(schema, 0)
        while self._todo:
            ref = self._todo.pop()
            self.defs[self._names[ref]] = self._copy(look_up(self._document, ref, self._where), 0)
        return taken

    def _name(self, ref: object) -> str:
        if not isinstance(ref, str):
            raise DataError(f"{self._where}: $ref is not text")
        if ref not in self._names:
            last = "".join(c if c.isalnum() or c in "_.-" else "_" for c in ref.rsplit("/", 1)[-1])[:40]
            self._names[ref] = last if last not in self._names.values() else f"{last}_{len(self._names)}"
            self._todo.append(ref)
        return self._names[ref]

    def _copy(self, node: Any, depth: int) -> Any:
        if not isinstance(node, dict | list):
            return node
        self._parts += 1
        if self._parts > MOST_PARTS or depth > DEEPEST:
            raise DataError(f"{self._where}: its schema has more than {MOST_PARTS} parts, or is deeper than {DEEPEST}")
        if isinstance(node, list):
            return [self._copy(part, depth + 1) for part in node]
        if "$ref" in node:
            return {"$ref": f"#/$defs/{self._name(node['$ref'])}"}
        kept = {key: self._member(key, part, depth + 1) for key, part in node.items() if not self._drop(key)}
        return _own_words(node, kept)

    def _drop(self, key: str) -> bool:
        return key in DROPPED or key.startswith("x-")

    def _member(self, key: str, part: Any, depth: int) -> Any:
        if key in VALUES:
            return part
        if key in NAMED and isinstance(part, dict):
            return {str(name): self._copy(one, depth + 1) for name, one in part.items()}
        return self._copy(part, depth)


def _own_words(node: Json, kept: Json) -> Json:
    """OpenAPI 3.0's words in JSON Schema's."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(kept.get(exclusive), bool) and kept.pop(exclusive) and bound in kept:
            kept[exclusive] = kept.pop(bound)
    if node.get("nullable") is True:
        if isinstance(kept.get("enum"), list) and None not in kept["enum"]:
            kept["enum"] = [*kept["enum"], None]
        if isinstance(kept.get("type"), str):
            kept["type"] = [kept["type"], "null"]
        elif "type" not in kept and kept:
            kept = {"anyOf": [kept, {"type": "null"}]}
    return kept
