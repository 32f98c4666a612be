"""POST /v1/chat/completions and /v1/completions: read, admit, answer; streamed or whole, and given up when the client is."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myna.provider.wire.frames import EVENTS, Frames
from myna.provider.wire.request import Ask
from myna.provider.wire.response import Writer
from myna.records import MynaError, RequestError
from myna.serve.answer import JsonResponse
from myna.serve.desk import REQUEST_ID, Desk
from myna.serve.feed import Feed

log = logging.getLogger("myna.serve")
IGNORED_SHOWN = 1000  # characters of the X-Ignored-Params header


class ClientGone(Exception):
    """The client hung up. Nobody is left to tell."""


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
            body = await read_body(Headers(scope=scope), receive, self.desk.max_body)
            await unless_gone(self._answer(body, scope, receive, send), receive)

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        ask = self.read(body)
        provider = self.desk.provider(ask.model)
        writer = self.write(ask, provider.name)
        headers = {"x-ignored-params": listed(ask.ignored)} if ask.ignored else {}
        pause = self.desk.keepalive if ask.stream and self.frames.keepalive else math.inf
        async with Feed(provider, ask.prompts, ask.sampling, pause) as feed:
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


async def unless_gone(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `answer`, but give it up, in whatever phase it is, as soon as the client hangs up. Raises ClientGone."""
    working, watching = asyncio.create_task(answer), asyncio.create_task(_hang_up(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    announced = headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else 0
    body = bytearray()
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        size = max(size, len(body))
        if not message.get("more_body", False) and size <= limit:
            return bytes(body)
    raise RequestError(f"The body is larger than {limit:,} bytes.", code="request_too_large")


def listed(names: tuple[str, ...]) -> str:
    """Header-safe: a client chose these names."""
    safe = ("".join(c if "!" <= c <= "~" and c != "," else "?" for c in name) or "?" for name in names)
    text = ",".join(safe)
    return text if len(text) <= IGNORED_SHOWN else text[: IGNORED_SHOWN - 3] + "..."
