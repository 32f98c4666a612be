"""The one other record: plain text, to pretrain on or to continue."""

from dataclasses import dataclass, field
from typing import Any

from myna.records.conversation import Json, Tokens
from myna.records.fields import Fields


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text. `tokens`, when present, are the exact ids of the text and are used instead of tokenizing it. `suffix`, when
    present, is what follows the gap after the text: what is asked for goes between them."""

    text: str
    tokens: Tokens | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    suffix: str | None = None

    @classmethod
    def from_json(cls, value: object, path: str = "") -> "Document":
        """Raises DataError naming the field."""
        f = Fields(value, path)
        text, tokens = f.take("text", str), f.take("tokens", dict, default=None)
        suffix = f.take("suffix", str, default=None)
        ids = None if tokens is None else Tokens.from_json(tokens, f.at("tokens"))
        return cls(text, ids, suffix=suffix, meta=f.rest())

    def to_json(self) -> Json:
        row: Json = {"text": self.text}
        if self.tokens is not None:
            row["tokens"] = self.tokens.to_json()
        if self.suffix is not None:
            row["suffix"] = self.suffix
        return row | ({"meta": self.meta} if self.meta else {})
