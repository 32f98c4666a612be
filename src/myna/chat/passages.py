"""Whole texts, one or two, as an embedding model or a cross-encoder reads them: with what tokenizer.json puts around them.

Only the frame is taken from there. The texts themselves are tokenized as everywhere in this room, so a typed "[SEP]" is five
characters of text and never ends anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from myna.chat.pieces import _flatten
from myna.chat.tokenizer import Tokenizer, read_json
from myna.records import ChatError

Slot = tuple[int | Literal["A", "B"], int]
"""A token id, or the place of the first or second text, and the token type (BERT's segment) there."""


@dataclass(frozen=True, slots=True)
class Framed:
    """Token ids and the type of each, ready for an encoder."""

    ids: tuple[int, ...]
    kinds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Passages:
    """A model's tokenizer and its frames. `pair` is None where the model has none: it never reads two texts at once. `lower`
    says that the model reads small letters only, though its tokenizer does not make them."""

    tokenizer: Tokenizer
    single: tuple[Slot, ...]
    pair: tuple[Slot, ...] | None
    lower: bool = False

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer | None = None) -> "Passages":
        """Of a model directory, whose `tokenizer` may be there already. Raises ChatError as Tokenizer.load does, and for a
        frame that we do not understand."""
        tokenizer, where = tokenizer or Tokenizer.load(path), path / "tokenizer.json"
        steps = _flatten(read_json(where).get("post_processor"), "processors")
        try:
            frames = [frame for step in steps if (frame := _frames(step))]
        except (KeyError, TypeError, ValueError, IndexError) as e:
            raise ChatError(f"{where}: post_processor cannot be understood: {type(e).__name__}: {e}") from None
        if frames:
            return cls(tokenizer, *frames[0])
        return cls(tokenizer, (*((id, 0) for id in tokenizer.opening), ("A", 0)), None)

    @property
    def kinds(self) -> int:
        """How many token types the frames use."""
        return 1 + max(kind for _, kind in (*self.single, *(self.pair or ())))

    def encode(self, text: str) -> list[int]:
        """A text's own ids, without a frame. Raises ChatError as Tokenizer.encode does."""
        return self.tokenizer.encode(text.lower() if self.lower else text)

    def bare(self, ids: Sequence[int]) -> Sequence[int]:
        """Ids without the frame of a single text, if they stand in it."""
        place = next((i for i, (what, _) in enumerate(self.single) if what == "A"), len(self.single))
        before, after = ([what for what, _ in part] for part in (self.single[:place], self.single[place + 1 :]))
        end = len(ids) - len(after)
        if end >= len(before) and [*ids[: len(before)], *ids[end:]] == [*before, *after]:
            return ids[len(before) : end]
        return ids

    def overhead(self, *, pair: bool = False) -> int:
        """How many tokens the frame adds."""
        return sum(isinstance(what, int) for what, _ in (self.pair or () if pair else self.single))

    def one(self, ids: Sequence[int]) -> Framed:
        """One text's ids in its frame."""
        return _fill(self.single, {"A": ids})

    def two(self, first: Sequence[int], second: Sequence[int]) -> Framed:
        """Two texts' ids in theirs. The model must have one."""
        assert self.pair is not None, "this model never reads two texts at once"
        return _fill(self.pair, {"A": first, "B": second})


def _fill(frame: tuple[Slot, ...], texts: dict[str, Sequence[int]]) -> Framed:
    ids: list[int] = []
    kinds: list[int] = []
    for what, kind in frame:
        ids += (what,) if isinstance(what, int) else texts[what]
        kinds += [kind] * (len(ids) - len(kinds))
    return Framed(tuple(ids), tuple(kinds))


def _frames(step: dict[str, Any]) -> tuple[tuple[Slot, ...], tuple[Slot, ...] | None] | None:
    """What one post-processor puts around a text and around two; None for one that puts nothing."""
    if step["type"] == "TemplateProcessing":
        special = {name: token["ids"] for name, token in step["special_tokens"].items()}
        single, pair = (_template(step[name] or [], special) for name in ("single", "pair"))
        return single, pair if {what for what, _ in pair} >= {"A", "B"} else None
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        cls, sep = int(step["cls"][1]), int(step["sep"][1])
        if step["type"] == "BertProcessing":
            return ((cls, 0), ("A", 0), (sep, 0)), ((cls, 0), ("A", 0), (sep, 0), ("B", 1), (sep, 1))
        return ((cls, 0), ("A", 0), (sep, 0)), ((cls, 0), ("A", 0), (sep, 0), (sep, 0), ("B", 0), (sep, 0))
    return None


def _template(items: list[dict[str, Any]], special: dict[str, list[int]]) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for item in items:
        if "Sequence" in item:
            slots.append(("A" if item["Sequence"]["id"] == "A" else "B", int(item["Sequence"]["type_id"])))
        else:
            token = item["SpecialToken"]
            slots += [(int(id), int(token["type_id"])) for id in special[token["id"]]]
    return tuple(slots)
