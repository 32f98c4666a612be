"""POST /v1/moderations, with a check of the user's own.

There is none built in: one that flags nothing would tell its callers that everything is fine. Without a check the endpoint
says so (404). A check is any coroutine function from texts to verdicts; `Finds` makes one of a plain function.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from starlette.routing import Route

from myna.provider.wire.moderations import Verdict, read_moderation, write_moderation
from myna.records import Json, RequestError
from myna.serve.desk import Desk
from myna.serve.plain import Plain

Check = Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]


class Finds:
    """A check by a function that names the categories of what it finds in a text."""

    def __init__(self, name: str, categories: Sequence[str], find: Callable[[str], Iterable[str]]):
        self.name, self._categories, self._find = name, categories, find

    async def __call__(self, texts: Sequence[str]) -> Sequence[Verdict]:
        return await asyncio.to_thread(lambda: [self._look(text) for text in texts])

    def _look(self, text: str) -> Verdict:
        found = frozenset(self._find(text))
        return Verdict({name: float(name in found) for name in self._categories}, found)


def routes(desk: Desk) -> list[Route]:
    async def moderate(body: bytes) -> tuple[Json, tuple[str, ...]]:
        texts, ignored = read_moderation(body)
        if desk.check is None:
            raise RequestError(
                "This server has no moderation check, so it cannot say what is fine. Start it with --moderation LIST.",
                code="not_configured",
            )
        verdicts = list(await desk.check(texts))
        return write_moderation(verdicts, getattr(desk.check, "name", type(desk.check).__name__.lower())), ignored

    return [Route("/v1/moderations", Plain(desk, moderate), methods=["POST"])]
