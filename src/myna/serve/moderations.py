"""POST /v1/moderations, with a check of the user's own.

There is none built in: one that flags nothing would tell its callers that everything is fine. Without a check the endpoint
says so (404). A check is any coroutine function from texts to verdicts; `Phrases` is one.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import orjson
from starlette.routing import Route

from myna.provider.wire.moderations import Verdict, read_moderation, write_moderation
from myna.records import DataError, Json, RequestError
from myna.serve.desk import Desk
from myna.serve.plain import Plain

Check = Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]


class Phrases:
    """Flags a text that has one of a category's phrases in it, as whole words where they are words, in upper or lower case."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]):
        self._patterns = {name: _any_of(words) for name, words in phrases.items()}

    @classmethod
    def read(cls, path: Path) -> "Phrases":
        """A JSON file: {"category": ["phrase", ...], ...}. Raises DataError."""
        try:
            value = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as e:
            raise DataError(f"{path}: {e}") from None
        good = isinstance(value, dict) and all(
            isinstance(words, list) and words and all(isinstance(word, str) and word.strip() for word in words)
            for words in value.values()
        )
        if not good or not value:
            raise DataError(f'{path}: expected {{"category": ["phrase", ...], ...}}, with no empty list or phrase')
        return cls(value)

    async def __call__(self, texts: Sequence[str]) -> Sequence[Verdict]:
        return await asyncio.to_thread(lambda: [self._look(text) for text in texts])

    def _look(self, text: str) -> Verdict:
        found = frozenset(name for name, pattern in self._patterns.items() if pattern.search(text))
        return Verdict({name: float(name in found) for name in self._patterns}, found)


def routes(desk: Desk) -> list[Route]:
    async def moderate(body: bytes) -> tuple[Json, tuple[str, ...]]:
        texts, ignored = read_moderation(body)
        if desk.check is None:
            raise RequestError(
                "This server has no moderation check, so it cannot say what is fine. Start it with --moderation FILE.",
                code="not_configured",
            )
        verdicts = list(await desk.check(texts))
        return write_moderation(verdicts, getattr(desk.check, "name", type(desk.check).__name__.lower())), ignored

    return [Route("/v1/moderations", Plain(desk, moderate), methods=["POST"])]


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    """Escaped, so a phrase is never a pattern that could run for ever."""
    return re.compile("|".join(_bounded(word) for word in words), re.IGNORECASE)


def _bounded(word: str) -> str:
    """Chinese has no blanks between words, so only what begins or ends like a Latin word must begin or end one."""
    before = r"(?<![A-Za-z0-9_])" if re.match(r"[A-Za-z0-9_]", word) else ""
    after = r"(?![A-Za-z0-9_])" if re.search(r"[A-Za-z0-9_]$", word) else ""
    return before + re.escape(word) + after
