"""Any OpenAI-compatible endpoint as a provider: chat for conversations, completions for documents."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import orjson

from myna.provider.powers import Powers
from myna.provider.wire.error import AT_V1, message_in, read_error
from myna.provider.wire.request import write_request
from myna.provider.wire.response import ChunkReader
from myna.provider.wire.sse import read_events
from myna.records import Conversation, DataError, Delta, Document, ProviderError, RequestError, Sampling

if TYPE_CHECKING:
    import httpx

What = Conversation | Document
ERROR_BODY = 64 << 10  # bytes of an error body that we read
LONGEST = 16 << 20  # characters of all answers to one request; a million tokens have about four million
EVENT = 8  # characters that an event counts beside its text: a stream of empty ones ends, too
STUCK = 3600.0  # seconds without an event, whatever keepalives come meanwhile


class Http:
    """A model behind a URL such as "http://127.0.0.1:8000/v1". Nothing is retried here; wrap it to retry.

    powers    what was found out about it (probe.py)
    timeout   seconds the endpoint may be silent before the request fails; a long prompt on a slow machine is silent
              for minutes, unless the server sends keepalives as ours does
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        powers: Powers | None = None,
        timeout: float = 600.0,
    ):
        self.name = model
        self.powers = powers
        self.base_url, self._user = without_user(base_url.rstrip("/"))
        self._headers = {"accept": "text/event-stream"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
        self._timeout = timeout
        # A connection belongs to the event loop that opened it, and a program may run several in turn.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def stream(self, what: What, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        """See Provider.stream. A stream that stops before every candidate has its finish_reason is a ProviderError:
        a cut answer never passes for a short one. So is one that has not ended after LONGEST characters. One that gives fewer candidates
        than were asked for is a RequestError about n, as from those that refuse it."""
        path, body = write_request(what, sampling.check(), self.name)
        async with self._events(path, orjson.dumps(body)) as events:
            yield Delta()
            wanted, begun = set(range(sampling.n or 1)), set[int]()
            unfinished = set(wanted)
            reader, usage, length, event = ChunkReader(), None, 0, None
            while (event := await self._next(events)) not in (None, b"[DONE]"):
                length += EVENT
                for delta in self._read(event or b"", reader):
                    begun.add(delta.candidate)
                    if delta.finish_reason:
                        unfinished.discard(delta.candidate)
                    length += (
                        len(delta.text) + len(delta.reasoning) + sum(len(one.arguments) for one in delta.tool_calls)
                    )
                    if delta.usage:
                        usage = delta.usage  # some endpoints repeat it on every chunk; ours is one, the last
                    else:
                        yield delta
                if length > LONGEST:
                    raise ProviderError(f"{self.base_url} sent {LONGEST:,} characters and did not end.")
        if usage:
            yield Delta(usage=usage)  # what was counted is paid for, finished or not
        if event and begun and begun < wanted and not unfinished & begun:  # it ended well, and some were never begun
            raise RequestError(
                f"{self.base_url} gave {len(begun)} of {sampling.n} answers: it does not give several to one request.",
                param="n",
            )
        if unfinished:
            raise ProviderError(f"{self.base_url} ended its stream before the answer was finished.")

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        if client := self._clients.pop(asyncio.get_running_loop(), None):
            await client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _events(self, path: str, body: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events of the endpoint's answer, once it has accepted the request."""
        import httpx

        url = f"{self.base_url}/{path}"
        headers = {"content-type": "application/json"}
        try:
            async with self._client().stream("POST", url, content=body, headers=headers) as response:
                if response.status_code != 200:
                    raise read_error(response.status_code, response.headers, await _read_some(response), url)
                kind = response.headers.get("content-type", "none")
                if not kind.startswith("text/event-stream"):
                    said = message_in(await _read_some(response))
                    page = f" ({AT_V1})" if kind.startswith("text/html") else ""
                    raise ProviderError(
                        f"{url} answered with content type {kind!r}, where an event stream was asked for: {said}{page}"
                    )
                yield read_events(response.aiter_bytes())
        except httpx.TimeoutException:
            raise ProviderError(f"{url} was silent for {self._timeout:g} seconds.") from None
        except httpx.ConnectError as e:
            raise ProviderError(f"Cannot reach {url}: {e}. Is the server running?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise ProviderError(f"{url}: {e or type(e).__name__}") from None

    async def _next(self, events: AsyncIterator[bytes]) -> bytes | None:
        """The next event; None at the end."""
        try:
            async with asyncio.timeout(STUCK):
                return await anext(events, None)
        except TimeoutError:
            raise ProviderError(f"{self.base_url} said nothing for {STUCK:g} seconds and did not end.") from None

    def _read(self, event: bytes, reader: ChunkReader) -> list[Delta]:
        try:
            chunk = orjson.loads(event)
            if isinstance(chunk, dict) and chunk.get("error"):
                raise ProviderError(f"{self.base_url} failed in mid-answer: {message_in(event)}")
            return list(reader.read(chunk))
        except orjson.JSONDecodeError:
            raise ProviderError(f"{self.base_url} sent an event that is not JSON: {event[:200]!r}") from None
        except DataError as e:
            raise ProviderError(f"{self.base_url} sent a malformed chunk: {e}") from None

    def _client(self) -> "httpx.AsyncClient":
        """This event loop's client, opened on first use. A server on this machine is never reached through a proxy."""
        import httpx

        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(
                headers=self._headers,
                auth=self._user,
                timeout=httpx.Timeout(self._timeout, connect=10.0, pool=None),
                limits=httpx.Limits(max_connections=None),
                trust_env=not is_loopback(self.base_url),
            )
        return self._clients[loop]


async def _read_some(response: "httpx.Response") -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= ERROR_BODY:
            break
    return body[:ERROR_BODY]


def without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """(the address, its NAME:PASSWORD@): addresses are written into traces and errors, and passwords are not."""
    before, at, rest = url.partition("@")
    scheme, slashes, user = before.partition("://")
    if not at or not slashes or "/" in user or "?" in user:
        return url, None
    name, _, password = user.partition(":")
    return f"{scheme}://{rest}", (unquote(name), unquote(password))


def is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
