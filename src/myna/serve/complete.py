"""POST /v1/chat/completions and /v1/completions: read, admit, answer; streamed or whole, and given up when the client is."""

import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myna.provider.wire.body import naming
from myna.provider.wire.frames import EVENTS, Frames
from myna.provider.wire.request import Ask
from myna.provider.wire.response import Writer
from myna.records import MynaError
from myna.serve.answer import JsonResponse
from myna.serve.desk import REQUEST_ID, Desk, answers
from myna.serve.feed import Feed
from myna.serve.receive import receive_body, unless_gone

log = logging.getLogger("myna.serve")


@dataclass(frozen=True, slots=True)
class Completions:
    """An endpoint: `read` makes an Ask of the body, `write` says the answer in the endpoint's own shape, `frames` are what its
    streams are cut into."""

    desk: Desk
    read: Callable[[bytes], Ask]
    write: Callable[[Ask, str], Writer]
    frames: Frames = EVENTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.desk.admit():
            body = await receive_body(Headers(scope=scope), receive, self.desk.max_body)
            await unless_gone(self._answer(body, scope, receive, send), receive)

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        ask = self.read(body)
        provider = self.desk.provider(ask.model, answers)
        writer = self.write(ask, provider.name)
        headers = self.desk.ignoring(ask.ignored)
        pause = self.desk.keepalive if ask.stream and self.frames.keepalive else math.inf
        async with contextlib.AsyncExitStack() as stack:
            with naming(lambda field: ask.names.get(field, field)):
                feed = await stack.enter_async_context(Feed(provider, ask.prompts, ask.sampling, pause))
            if ask.stream:
                await _send_events(self._events(feed, writer), headers | {"content-type": self.frames.media_type}, send)
                return
            deltas = [delta async for delta in feed if delta is not None]
        await JsonResponse(writer.whole(deltas), headers=headers)(scope, receive, send)

    async def _events(self, feed: Feed, writer: Writer) -> AsyncIterator[bytes]:
        """The stream. After a failure comes its error and nothing more: no finish_reason, no [DONE]."""
        try:
            for row in writer.opening():
                yield self.frames.write(row)
            async for delta in feed:
                if delta is None:
                    yield self.frames.keepalive
                    continue
                for chunk in writer.chunks(delta):
                    yield self.frames.write(chunk)
            for row in writer.closing():
                yield self.frames.write(row)
        except Exception as error:
            if not isinstance(error, MynaError):
                log.exception("request %s failed in mid-answer", REQUEST_ID.get())
            status, error_body, _ = self.desk.refusal(error)
            for row in writer.failed(status, error_body):
                yield self.frames.write(row)
        else:
            yield self.frames.done


async def _send_events(events: AsyncIterator[bytes], headers: dict[str, str], send: Send) -> None:
    head = Response(headers=headers | {"cache-control": "no-cache", "x-accel-buffering": "no"})
    del head.headers["content-length"]
    await send({"type": "http.response.start", "status": 200, "headers": head.raw_headers})
    async for event in events:
        # Waits while the client is slow to read; the feed, and with it the provider, waits too.
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
