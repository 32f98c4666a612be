"""Links and images in an answer that a stranger may have had a hand in. A page that shows an image fetches its address, and the address
may carry what was read; so nothing in such an answer is left that is fetched, or followed by a click that looks like something else.

It is not enough to look for "http": Markdown takes character references and backslashes inside of an address. So the syntax goes too.
"""

import re

URL = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]{1,20}:)?//[^\s<>()\[\]\"'`]+|\b(?:mailto|data|javascript|tel|sms):[^\s<>()\[\]\"'`]+|\bwww\.[^\s<>()\[\]\"'`]+",
    re.IGNORECASE,
)
# A link's or an image's target, a definition of one, and a tag that may have one: with a blank inside none of them is that any longer.
SYNTAX = (
    (re.compile(r"\](?=\()"), "] "),
    (re.compile(r"\](?=:)"), "] "),
    (re.compile(r"\](?=\[)"), "] "),
    (re.compile(r"!(?=\[)"), "! "),
    (re.compile(r"<(?=/?[A-Za-z][^<>]*=|/?(?:script|style|iframe|svg|math|base|object)\b)", re.IGNORECASE), "< "),
)


def harmless(text: str) -> tuple[str, tuple[str, ...]]:
    """(the text with its addresses written so that nothing follows them, those addresses as they were, each once)."""
    links = tuple(dict.fromkeys(match[0] for match in URL.finditer(text)))
    text = URL.sub(lambda match: _defanged(match[0]), text)
    for pattern, instead in SYNTAX:
        text = pattern.sub(instead, text)
    return text, links


def _defanged(url: str) -> str:
    """As people who work with hostile addresses write them: hxxps[:]//example[.]com/a."""
    scheme, colon, rest = url.partition(":") if ":" in url.split("/")[0] else ("", "", url)
    scheme = re.sub("tt", "xx", scheme, flags=re.IGNORECASE)
    host, slash, path = rest.removeprefix("//").partition("/")
    slashes = "//" if rest.startswith("//") else ""
    return f"{scheme}{'[:]' if colon else ''}{slashes}{host.replace('.', '[.]')}{slash}{path}"
