"""The HTTP client that the MCP SDK is given: the user's headers, no proxy of the environment's, and a most to what is read of one
response (of events, the SDK bounds each by itself, and a stream of them may be long)."""

from collections.abc import AsyncIterator, Mapping

import httpx2


def limited(
    headers: Mapping[str, str], most: int, inner: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """A client whose responses end with an error after `most` bytes. `inner` is what carries them, the network by default."""
    timeout = httpx2.Timeout(30.0, read=300.0)
    transport = _Limited(inner or httpx2.AsyncHTTPTransport(), most)
    return httpx2.AsyncClient(headers=dict(headers), timeout=timeout, transport=transport, trust_env=False)


class _Limited(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, most: int):
        self._inner, self._most = inner, most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Counted(response.stream, self._most)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, left: int):
        self._inner, self._left = inner, left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.StreamError("the response is too long")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
