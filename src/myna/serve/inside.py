"""A request that the server makes of itself, and the answer to it. No socket."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import Scope


class Inside:
    """`receive` gives the body and then nothing, as from a client that waits; `send` gathers the answer."""

    def __init__(self, body: bytes):
        self._body: bytes | None = body
        self._answer = bytearray()

    @property
    def answer(self) -> bytes:
        return bytes(self._answer)

    def scope(self, path: str) -> Scope:
        head = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}
        return head | {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"}

    async def receive(self) -> MutableMapping[str, Any]:
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self._answer += message.get("body", b"")
