"""An endpoint that answers at once and whole: no streams, no sampling."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from myna.records import Json
from myna.serve.answer import JsonResponse
from myna.serve.desk import Desk
from myna.serve.receive import receive_body, unless_gone


@dataclass(frozen=True, slots=True)
class Plain:
    """`answer` makes of a body the reply and the names of the fields that it ignored."""

    desk: Desk
    answer: Callable[[bytes], Awaitable[tuple[Json, tuple[str, ...]]]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.desk.admit():
            body = await receive_body(Headers(scope=scope), receive, self.desk.max_body)
            await unless_gone(self._reply(body, scope, receive, send), receive)

    async def _reply(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        reply, ignored = await self.answer(body)
        await JsonResponse(reply, headers=self.desk.ignoring(ignored))(scope, receive, send)
