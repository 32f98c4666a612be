"""A request's body as it comes in, and whether its client is still there."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive

from myna.records import RequestError


class ClientGone(Exception):
    """The client hung up. Nobody is left to tell."""


async def receive_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises RequestError (a 413) on one of more than `limit` bytes."""
    refusal = RequestError(f"The body is larger than {limit:,} bytes.", code="request_too_large")
    body = bytearray()
    async for piece in pieces(headers, receive, limit, refusal):
        body += piece
    return bytes(body)


async def pieces(headers: Headers, receive: Receive, limit: int, refusal: RequestError) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises `refusal` as soon as it is known to have more than `limit` bytes: announced, if it was."""
    announced = headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit:
        raise refusal
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise refusal
        yield piece
        more = message.get("more_body", False)


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
