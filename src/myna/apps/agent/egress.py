"""Links and images in an answer that a stranger may have had a hand in. A page that shows an image fetches its address, and the address
may carry what was read; so nothing in such an answer is left that is fetched, or followed by a click that looks like something else.

It is not enough to look for "http": Markdown takes character references and backslashes inside of an address. So the syntax goes too.
What the user wrote himself carries nothing that he did not know: an address of his own words stays as it is.
"""

import re
from collections.abc import Collection

from myna.apps.agent.session import Session

REST = r"[^\s<>()\[\]\"'`，。、；：！？（）《》「」【】“”]"  # Chinese puts no blank between an address and what follows
URL = re.compile(
    rf"(?:\b[a-z][a-z0-9+.-]{{1,20}}:)?//{REST}+"
    rf"|\b(?:https?|ftps?|wss?|file|mailto|data|javascript|vbscript|tel|sms):(?=[^\s/]){REST}+"
    rf"|\bwww\.{REST}+"
    rf"|(?<![\w@./-])(?:[\w-]{{1,63}}\.){{1,10}}[^\W\d_]{{2,63}}(?::\d{{1,5}})?[/?#](?=[\w%?#]){REST}+"  # evil.example/x, without a scheme
    rf"|(?<![\w./-])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?::\d{{1,5}})?/{REST}+",
    re.IGNORECASE,
)
AFTER = ".,;:!?"  # that ends a sentence, and no address
# A link's or an image's target, a definition of one, and a tag that may have one: with a blank inside none of them is that any longer.
SYNTAX = (
    (re.compile(r"\](?=\()"), "] "),
    (re.compile(r"\](?=:)"), "] "),
    (re.compile(r"\](?=\[)"), "] "),
    (re.compile(r"!(?=\[)"), "! "),
    (re.compile(r"<(?=/?[A-Za-z][^<>]*=|/?(?:script|style|iframe|svg|math|base|object)\b)", re.IGNORECASE), "< "),
)


def answer_of(session: Session) -> tuple[str, tuple[str, ...]]:
    """(the answer that a session ends with, "" where it ends with none, what was made harmless in it)."""
    last = session.messages[-1]
    text = last.text if last.role == "assistant" and not last.tool_calls else ""
    return harmless(text, addresses(session.own_words)) if session.tainted else (text, ())


def addresses(text: str) -> frozenset[str]:
    return frozenset(match[0].rstrip(AFTER) for match in URL.finditer(text))


def harmless(text: str, own: Collection[str] = ()) -> tuple[str, tuple[str, ...]]:
    """(the text with its addresses written so that nothing follows them, those addresses as they were, each once). `own`: addresses that
    stay, letter for letter."""
    links: dict[str, None] = {}

    def written(match: re.Match[str]) -> str:
        address = match[0].rstrip(AFTER)
        if address in own:
            return match[0]
        links[address] = None
        return _defanged(match[0])

    text = URL.sub(written, text)
    for pattern, instead in SYNTAX:
        text = pattern.sub(instead, text)
    return text, tuple(links)


def _defanged(url: str) -> str:
    """As people who work with hostile addresses write them: hxxps[:]//example[.]com/a."""
    scheme, colon, rest = url.partition(":") if ":" in url.split("/")[0] else ("", "", url)
    scheme = re.sub("tt", "xx", scheme, flags=re.IGNORECASE)
    host, slash, path = rest.removeprefix("//").partition("/")
    slashes = "//" if rest.startswith("//") else ""
    return f"{scheme}{'[:]' if colon else ''}{slashes}{host.replace('.', '[.]')}{slash}{path}"
