"""Text to token ids and back, on the `tokenizers` library; the line between text and control tokens is drawn here.

The library would find control tokens wherever they are typed. We take them out of it: it only ever sees plain text, and
`encode_markup` alone, for text we wrote ourselves, looks for control tokens. Which added tokens are control tokens:

    - those flagged "special" in tokenizer.json, and those named in tokenizer_config.json (bos_token, eos_token, ...)
    - those that the chat template mentions (Qwen's <tool_call> and <think> are not flagged)
    - those shaped like markers: <|x|>, <｜x｜>, <a_b>, [X_Y], <think>, <tool_call>, <unused7>, ...
    - never white space: GPT-NeoX and Gemma add runs of blanks and line ends as ordinary text

An added token outside this rule (Gemma's <h1>) is ordinary text and can be typed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from tokenizers import Encoding
from tokenizers import Tokenizer as _Library

from myna import modeldir
from myna.chat.pieces import Decoding, _flatten, _prepends, read_decoding
from myna.modeldir import files
from myna.records import ChatError, ModelDirError

# Markers that stay visible in decoded text although some tokenizers flag them: the reasoning splitter and the parsers of
# tool calls read them.
VISIBLE = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"})
_MARKER = re.compile(
    r"<[|｜].*[|｜]>|</?s>|</?(think|tools?|pad|unk|bos|eos|mask)>|</?[A-Za-z]+([_▁][A-Za-z0-9]+)+>"
    r"|<unused\d+>|\[/?[A-Z]+(_[A-Z0-9]+)*\]"
)


LONG = 10_000  # characters from which a text is encoded as a batch of one: for batches alone the library frees the interpreter


class Encoded(NamedTuple):
    """Ids, and for each the offset in the text just after its last character."""

    ids: list[int]
    ends: list[int]


@dataclass(frozen=True)
class _Control:
    """A control token as markup writes it; `lstrip` and `rstrip` swallow the white space beside it."""

    text: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False

    @property
    def pattern(self) -> str:
        return (r"\s*" if self.lstrip else "") + re.escape(self.text) + (r"\s*" if self.rstrip else "")


@dataclass(frozen=True)
class _Prefix:
    """The blank some tokenizers put before a text: before the first word only, or after control tokens as well."""

    text: str = ""
    unless: tuple[str, ...] = ()
    everywhere: bool = False


class Tokenizer:
    """A model's tokenizer. Make one with `Tokenizer.load(directory)`. Safe to use from many threads."""

    def __init__(self, spec: dict[str, Any], config: dict[str, Any], generation: dict[str, Any], template: str = ""):
        names = {name for key in _NAMED if (name := _content(config.get(key)))}
        self._names = {id: name for name, id in _vocabulary(spec).items()}
        self._in_model = frozenset(self._names.values())
        self._added = {token["id"]: token["content"] for token in spec["added_tokens"]}
        self._names |= self._added
        self._control = _controls(spec, names, template)
        self.special = {token.text: token.id for token in self._control}
        self._hidden = frozenset(t.id for t in self._control if t.special and t.text not in VISIBLE)
        self._decoding: Decoding = read_decoding(spec)
        self._prefix = _take_prefix(spec)
        self._library = _library(spec, self.special)
        self._cut = _regex(t.pattern for t in self._control)
        self._id_of = {t.text: t.id for t in self._control}
        self._unsafe = self._typeable(spec)
        self._pieces: dict[int, bytes] = {}
        self.bos_id = _find(self.special, config.get("bos_token"), generation.get("bos_token_id"))
        self.eos_ids = _eos_ids(self.special, config, generation)
        self._opening = _opening(spec, config, self.bos_id)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read tokenizer.json, tokenizer_config.json and generation_config.json of a model directory.

        Raises ChatError if tokenizer.json is missing or cannot be used.
        """
        path = Path(path)
        if not (path / "tokenizer.json").is_file():
            raise ChatError(
                f"{path} has no tokenizer.json. Copy it from the model's source, or fetch the model again with `myna pull`."
            )
        spec = read_json(path / "tokenizer.json")
        configs = [
            read_json(path / name) if (path / name).is_file() else {}
            for name in ("tokenizer_config.json", "generation_config.json", "config.json")
        ]
        generation = {key: configs[2].get(key) for key in ("bos_token_id", "eos_token_id")} | configs[1]
        try:
            return cls(_checked(spec), configs[0], generation, read_template(path) or "")
        except ChatError as e:
            raise ChatError(f"{path}: {e}") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:  # panics of the library too
            raise ChatError(f"{path}/tokenizer.json cannot be used: {type(e).__name__}: {e}") from e

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides ids: equal for tokenizers that encode alike."""
        parts = self._library.to_str(), sorted(self.special.items()), self._prefix, self._opening, self.eos_ids
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """One more than the largest id with a name. The model's own vocabulary may be larger (padded) or smaller."""
        return max(self._names, default=-1) + 1

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Control tokens typed in it stay text. Raises ChatError for text that is not Unicode."""
        return self.encode_run(text, starts=True).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores. Raises ChatError as it does."""
        prefix, unless = self._prefix.text, self._prefix.unless
        runs = [prefix + text if prefix and text and not text.startswith(unless) else text for text in texts]
        try:
            found = [encoding.ids for encoding in self._library.encode_batch_fast(runs, add_special_tokens=False)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # one of them cannot be encoded; alone it says why
            return [self.encode(text) for text in texts]
        if self._unsafe is None:
            return found
        return [self.encode(text) if self._unsafe.search(text) else ids for text, ids in zip(texts, found, strict=True)]

    def encode_markup(self, text: str) -> list[int]:
        """The ids of text we wrote ourselves: control tokens in it become their ids."""
        ids: list[int] = []
        after_control = False
        for is_control, piece in self.split_markup(text):
            if is_control:
                ids.append(self._id_of[piece.strip()] if piece not in self._id_of else self._id_of[piece])
            else:
                ids += self.encode_run(piece, starts=not ids, after_control=after_control).ids
            after_control = is_control
        return ids

    def split_markup(self, text: str) -> list[tuple[bool, str]]:
        """The text cut into (is a control token, piece). A control token's piece includes white space it swallows."""
        found, at = [], 0
        for match in self._cut.finditer(text) if self._cut else ():
            found += [(False, text[at : match.start()]), (True, match[0])]
            at = match.end()
        return [pair for pair in (*found, (False, text[at:])) if pair[1]]

    def control_id(self, piece: str) -> int:
        """The id of a control token as `split_markup` cut it out."""
        return self._id_of[piece] if piece in self._id_of else self._id_of[piece.strip()]

    def encode_run(self, text: str, *, starts: bool = False, after_control: bool = False) -> Encoded:
        """Plain text, which stands at the start of the whole, just after a control token, or else in mid-text."""
        prefix = self._prefix.text
        if (
            not prefix
            or not text
            or not (starts or (after_control and self._prefix.everywhere))
            or text.startswith(self._prefix.unless)
        ):
            prefix = ""
        try:
            encoding = self._encode_text(prefix + text)
        except TypeError as e:  # a lone surrogate is not text: the library cannot encode it
            raise ChatError(f"the text is not valid Unicode: {e}") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:  # the library is Rust; its panics (a regular expression gives up) are no Exceptions
            raise ChatError(f"the text cannot be tokenized: {e}") from None
        ids, ends = encoding.ids, [end - len(prefix) for _, end in encoding.offsets]
        if self._unsafe and (typed := self._unsafe.search(text)):
            return self._encode_around(text, typed, starts=starts, after_control=after_control)
        return Encoded(ids, ends)

    def _encode_text(self, text: str) -> Encoding:
        if len(text) < LONG:
            return self._library.encode(text, add_special_tokens=False)
        return self._library.encode_batch([text], add_special_tokens=False)[0]

    def _encode_around(self, text: str, typed: re.Match[str], *, starts: bool, after_control: bool) -> Encoded:
        """Break a typed control token after its first character, where the model itself would join it up."""
        middle = typed.start() + 1
        head = self.encode_run(text[:middle], starts=starts, after_control=after_control)
        tail = self.encode_run(text[middle:])
        return Encoded(head.ids + tail.ids, head.ends + [middle + end for end in tail.ends])

    def decode(self, ids: Iterable[int], *, starts: bool = True) -> str:
        """The text of ids. Control tokens yield nothing, nor do ids beyond the vocabulary. Bad bytes become U+FFFD.

        At the start of a text the blank that SentencePiece puts before the first word is not part of it.
        """
        data = b"".join(self.visible(id) for id in ids)
        if starts and self._decoding.strips_blank and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", errors="replace")

    def piece(self, id: int) -> bytes:
        """The exact bytes of one token as it appears in running text; a control token's are its name. b"" if unknown."""
        if (known := self._pieces.get(id)) is not None:
            return known
        name = self._names.get(id)
        if name is None:
            return b""
        self._pieces[id] = name.encode() if id in self._added else self._decoding.piece(name)
        return self._pieces[id]

    def visible(self, id: int) -> bytes:
        """The bytes a reader sees: `piece`, but nothing for a control token (save <think> and the like)."""
        return b"" if id in self._hidden else self.piece(id)

    @property
    def strips_blank(self) -> bool:
        """Whether a text's first blank is the tokenizer's own."""
        return self._decoding.strips_blank

    @property
    def opening(self) -> tuple[int, ...]:
        """What a plain document begins with: usually nothing, or the bos token."""
        return self._opening

    def _typeable(self, spec: dict[str, Any]) -> re.Pattern[str] | None:
        """Control tokens and byte tokens that the model would build from plain text.

        A Unigram model matches every name in its vocabulary, "</s>" and "<0x0A>" included; a BPE with ignore_merges and a
        word model take a whole word that is in it. Others could only reach a name by merges, which control tokens lack;
        that is tried out here for each of them.
        """
        names = {t.text for t in self._control if len(t.text) > 1}
        model = spec["model"]
        if model.get("type") != "BPE" or model.get("ignore_merges"):
            names |= {name for name in self._in_model if name.startswith("<0x") and len(name) == 6}
            names &= set(self._in_model)
        else:
            names = {name for name in names & self._in_model if self.special[name] in self._library.encode(name).ids}
        return _regex(re.escape(name) for name in names)


_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model directory, which may not be a link out of it. Raises ChatError."""
    try:
        return files.read_json(path.parent, path.name)
    except ModelDirError as e:
        raise ChatError(f"{e} Fetch the model again with `myna pull`.") from None


def read_template(path: Path) -> str | None:
    """The chat template of a model directory (modeldir.read_template). Raises ChatError."""
    try:
        return modeldir.read_template(path)
    except ModelDirError as e:
        raise ChatError(f"{e} Fetch the model again with `myna pull`.") from None


def _checked(spec: dict[str, Any]) -> dict[str, Any]:
    """The parsed tokenizer.json with the parts we rely on in place."""
    model = spec.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise ChatError("tokenizer.json has no model with a vocabulary")
    tokens = spec.get("added_tokens") or []
    good = isinstance(tokens, list) and all(
        isinstance(t, dict) and isinstance(t.get("id"), int) and isinstance(t.get("content"), str) and t["content"]
        for t in tokens
    )
    if not good:
        raise ChatError("tokenizer.json: added_tokens must be a list of objects with an id and a content")
    return {**spec, "added_tokens": tokens}


def _vocabulary(spec: dict[str, Any]) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}


def _controls(spec: dict[str, Any], named: set[str], template: str) -> tuple[_Control, ...]:
    return tuple(
        _Control(t["content"], t["id"], bool(t.get("special")), bool(t.get("lstrip")), bool(t.get("rstrip")))
        for t in spec["added_tokens"]
        if t["content"].strip(" \t\r\n▁")
        and (t.get("special") or t["content"] in named or t["content"] in template or _MARKER.fullmatch(t["content"]))
    )


def _library(spec: dict[str, Any], control: dict[str, int]) -> _Library:
    """The library's tokenizer for plain text: without control tokens, prefix, post-processing, padding or cutting."""
    added = [token for token in spec["added_tokens"] if token["content"] not in control]
    model = spec["model"]
    if added and isinstance(model["vocab"], dict):  # else the library would number the added tokens anew
        model = {**model, "vocab": model["vocab"] | {token["content"]: token["id"] for token in added}}
    model = {**model, "merges": _as_texts(model["merges"])} if model.get("merges") else model
    plain = {"model": model, "added_tokens": added, "post_processor": None, "padding": None, "truncation": None}
    library = _Library.from_str(orjson.dumps({**spec, **plain}).decode())
    if moved := [token["content"] for token in added if library.token_to_id(token["content"]) != token["id"]]:
        raise ChatError(
            f"tokenizer.json: the added token {moved[0]!r} cannot keep its id; this layout is not supported"
        )
    return library


def _as_texts(merges: list[Any]) -> list[Any]:
    """Pairs as texts "a b", which the library reads in two thirds of the time; unchanged where a token has a blank."""
    if not all(type(pair) is list for pair in merges):
        return merges
    texts = [" ".join(pair) for pair in merges]
    return texts if all(text.count(" ") == 1 for text in texts) else merges


def _take_prefix(spec: dict[str, Any]) -> _Prefix:
    """Take the rule for the blank before a text out of `spec`, so that mid-text can be encoded without it."""
    prefix = _Prefix()
    for step in _flatten(spec.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend":
            prefix = _Prefix(step["prepend"], everywhere=True)
            step["prepend"] = ""
    words = False  # text is cut into words first (XLM-RoBERTa), and each has its own blank wherever it stands
    for step in _flatten(spec.get("pre_tokenizer"), "pretokenizers"):
        words = words or step["type"] == "WhitespaceSplit"
        if step["type"] == "Metaspace" and _prepends(step) and not words:
            blank = step.get("replacement", "▁")
            prefix = _Prefix(blank, (" ", blank), everywhere=step.get("prepend_scheme", "always") == "always")
            step.pop("add_prefix_space", None)
            step["prepend_scheme"] = "never"
        if step["type"] == "ByteLevel" and step.get("add_prefix_space"):
            prefix = _Prefix(" ", (" ",), everywhere=True)
            step["add_prefix_space"] = False
    return prefix


def _opening(spec: dict[str, Any], config: dict[str, Any], bos: int | None) -> tuple[int, ...]:
    """What the tokenizer puts before a text: add_bos_token decides if it is there, else the post-processor."""
    wants = config.get("add_bos_token")
    if isinstance(wants, bool):
        return (bos,) if wants and bos is not None else ()
    for step in _flatten(spec.get("post_processor"), "processors"):
        if step["type"] == "TemplateProcessing":
            return _before_text(step)
        if step["type"] in ("BertProcessing", "RobertaProcessing"):
            return (int(step["cls"][1]),)
    return ()


def _before_text(step: dict[str, Any]) -> tuple[int, ...]:
    ids: list[int] = []
    for item in step["single"]:
        if "Sequence" in item:
            break
        ids += step["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    return tuple(ids)


def _eos_ids(special: dict[str, int], config: dict[str, Any], generation: dict[str, Any]) -> tuple[int, ...]:
    """Every id that ends an answer: generation_config.json's (one or a list), then the tokenizer's eos_token."""
    ids = generation.get("eos_token_id")
    listed: Sequence[Any] = ids if isinstance(ids, list) else [ids]
    named = special.get(_content(config.get("eos_token")) or "")
    return tuple(dict.fromkeys(id for id in (*listed, named) if isinstance(id, int)))


def _find(special: dict[str, int], name: Any, fallback: Any) -> int | None:
    found = special.get(_content(name) or "")
    return found if found is not None else fallback if isinstance(fallback, int) else None


def _content(token: Any) -> str | None:
    """tokenizer_config.json writes a token as a string or as an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _regex(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Any of the patterns, the longest first, as the library matches them; None if there is none."""
    ordered = sorted(patterns, key=len, reverse=True)
    return re.compile("|".join(ordered)) if ordered else None
