"""Documents as a tool: search, look whether it is enough, search otherwise, and stop when nothing new comes."""

from collections.abc import Sequence
from typing import Protocol

from myna.apps.index.index import Found, Hit
from myna.apps.tools import Tool, Untrusted, tool

SEARCHES, PASSAGES = 6, 4  # of one tool; of one search
OVER = "No more searches are left. Answer with what was found, or say that it is not enough."
NOTHING_NEW = (
    "Nothing new was found. Answer with what you have, ask in quite other words, or say that it is not enough."
)


class Searched(Protocol):
    """An index, as far as it is asked."""

    async def search(self, queries: str | Sequence[str], k: int = 10) -> Found: ...


def search_tool(index: Searched, *, searches: int = SEARCHES, passages: int = PASSAGES) -> Tool:
    """Searches an index, at most so many times; make one for each run. A passage is shown once, with the citation that
    `Index.parsed` resolves; what it says is a stranger's text."""
    seen: set[tuple[str, int, int]] = set()
    asked = 0

    @tool(effect="read", egress=False, untrusted=True)
    async def search(question: str) -> str:
        """Find passages in the documents. Search again, in other words, while something you need is missing.

        Args:
            question: What you need to know, 一个问题.
        """
        nonlocal asked
        if asked >= searches:
            return OVER
        asked += 1
        found = await index.search(question, passages + len(seen))
        new = [hit for hit in found.hits if _place(hit) not in seen][:passages]
        seen.update(_place(hit) for hit in new)
        return Untrusted("\n\n".join(map(_shown, new)), (hit.sha256 for hit in new)) if new else NOTHING_NEW

    return search


def _place(hit: Hit) -> tuple[str, int, int]:
    return hit.sha256, hit.start, hit.end


def _shown(hit: Hit) -> str:
    page = f", page {hit.page}" if hit.page else ""
    date = f", {hit.dated}" if hit.dated else ""
    return f"[{hit.sha256[:12]}:{hit.start}-{hit.end}] {hit.names[0]}{page}{date}\n{hit.text}"
