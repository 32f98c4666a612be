"""The arguments of a call: as a model writes them, and whether an address is among them."""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from myna.records import Json

MOST_ARGUMENTS = 1 << 20  # characters

# Endings that make a dotted name a file's. No top-level domain is among them (IANA's list), so none can be registered as a host:
# py, md, sh and zip are, and ask.
FILES = (
    "pdf docx? xlsx? pptx? odt csv tsv txt html? json jsonl ya?ml toml xml png jpe?g gif svg webp bmp tiff? wav mp3 mp4 eml log "
    "sqlite db sql ipynb js css gz tgz tar parquet npz bin exe"
).replace(" ", "|")
ADDRESS = re.compile(
    r"""
      \b[a-z][a-z0-9+.-]{1,30}:[/\\]{1,2}(?=\S)                       # https://x, https:/x, s3:\\x
    | \b(?:https?|ftps?|wss?|mailto|data|file|tel|sms):(?=[^\s/\\])   # https:x
    | (?<![\w:/\\])[/\\]{2}(?=[\w\[])                                 # //x, \\x
    | (?<![\w@.+-])[\w.+-]+@[\w-]                                     # a@x
    | (?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)                     # 192.0.2.1
    | \[[0-9a-f.]*:[0-9a-f:.]+\]                                      # [2001:db8::1]
    | (?<![\w:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![\w:])
    | (?<![\w:])(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*)?::[0-9a-f]       # 2001:db8::1
    | (?<![\w-])[\w-]{1,63}\.(?!(?:FILES)\b)(?:[^\W\d_]{2,63}|xn--[\w-]{1,59})(?!\.?[\w-])  # evil.example, 例子.中国; not a.pdf
    | (?<![\w-])[\w-]{1,63}\.[^\W\d_]{2,63}:\d                        # a.pdf:80
    """.replace("FILES", FILES),
    re.IGNORECASE | re.VERBOSE,
)


def parse(text: str) -> Json:
    """The arguments a model wrote. Raises ValueError: what is no object, has a name twice (which of the two would be run is not
    which is shown), is too long or too deep."""
    if len(text) > MOST_ARGUMENTS:
        raise ValueError(f"{len(text)} characters; {MOST_ARGUMENTS} are the most")
    found = json.loads(text or "{}", object_pairs_hook=_once, parse_constant=_no_constant)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} is written where an object belongs")
    return found


def addressed(arguments: Json) -> bool:
    """Whether a text among the arguments names a place in a network: a URL, a host, a mailbox, an IP address. A host that is put
    together of several arguments, spelled in words or encoded is not seen."""
    return any(ADDRESS.search(_plain(text)) for text in _texts(arguments))


def _texts(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one


def _plain(text: str) -> str:
    """As whoever looks a host up reads it (UTS 46): compatibility forms folded, what is not seen left out, the ideographic full
    stop a dot where it stands inside of a word."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return re.sub(r"(?<=[a-z0-9-])。(?=\w)", ".", seen, flags=re.IGNORECASE)


def _once(pairs: list[tuple[str, Any]]) -> Json:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
