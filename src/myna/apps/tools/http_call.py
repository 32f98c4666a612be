"""One HTTP request of a tool's, to the one host it belongs to: nothing in the arguments can send it elsewhere, no redirect leads
away, private addresses are refused unless the user named them, and what the user's headers hold is never shown to the model."""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from myna.records import ToolError

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 2 << 20  # of a response that are read; the dispatcher shows `cap` characters of them
MOST_REDIRECTS = 3
HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Host:
    """Where requests go. `base` is "https://api.example.com/v1"; `headers` are the user's own, an API key say. `named`: the user
    gave this address himself, so it may be private. `transport` is for tests."""

    base: str
    headers: Mapping[str, str]
    named: bool
    transport: "httpx.AsyncBaseTransport | None" = None

    @property
    def origin(self) -> tuple[str, str, int]:
        return origin(self.base)

    def masked(self, text: str) -> str:
        """Without the values of the user's headers, should the other side echo them."""
        for value in self.headers.values():
            for secret in {value, *value.split()}:
                if len(secret) >= 6:  # "Bearer" is masked too, which hurts nobody
                    text = text.replace(secret, HIDDEN)
        return text


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port). Raises ToolError for what is no address of a web server."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise ToolError(f"{url[:100]!r} is no http or https address.") from None
    if not parts.hostname or parts.username is not None:
        raise ToolError(f"{url[:100]!r} is no http or https address.")
    return parts.scheme, parts.hostname.lower(), port


async def send(
    host: Host,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: tuple[str, bytes] | None,
) -> str:
    """The response's text. Raises ToolError for a status of 400 and above, for a host that may not be called, and when there is
    no answer. A read follows redirects within the host; a write follows none, for it may have been done already."""
    import httpx

    url = _url(host, path).copy_merge_params([*query])
    for _ in range(MOST_REDIRECTS + 1):
        target, extensions, named = await _pinned(host, url)
        sent = httpx.Headers({"Accept": "application/json, text/*;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"})
        for more in (headers, {"Content-Type": body[0]} if body else {}, host.headers, {"Host": named}):
            sent.update(more)
        content = body[1] if body else None
        try:
            async with (
                httpx.AsyncClient(transport=host.transport, trust_env=False, timeout=30.0) as client,
                client.stream(method, target, headers=sent, content=content, extensions=extensions) as response,
            ):
                text = host.masked(await _text(response))
        except httpx.HTTPError as e:
            raise ToolError(host.masked(f"{host.origin[1]} gave no answer: {type(e).__name__}: {e}"[:300])) from None
        if not response.has_redirect_location:
            if response.status_code >= 400:
                raise ToolError(f"{host.origin[1]} answered {response.status_code}: {text[:1500]}")
            return text
        url = _next(host, method, url, response.headers["location"])
    raise ToolError(f"{host.origin[1]} redirected more than {MOST_REDIRECTS} times.")


def _url(host: Host, path: str) -> "httpx.URL":
    import httpx

    try:
        return httpx.URL(host.base + path)
    except httpx.InvalidURL as e:
        raise ToolError(f"The arguments make no address: {e}") from None


def _next(host: Host, method: str, url: "httpx.URL", location: str) -> "httpx.URL":
    import httpx

    if method not in ("GET", "HEAD"):
        raise ToolError(f"{host.origin[1]} redirects a {method}, which is not followed; it may have been done.")
    there = urljoin(str(url), location)
    if origin(there) != host.origin:
        raise ToolError(f"{host.origin[1]} redirects to another host, which is not followed.")
    return httpx.URL(there)


async def _pinned(host: Host, url: "httpx.URL") -> tuple["httpx.URL", dict[str, Any], str]:
    """(the address with the host's number in place of its name, what TLS must still be told, the Host header). The name is looked up
    once and what was checked is what is called, so it cannot turn into a private address in between."""
    if origin(str(url)) != host.origin:
        raise ToolError("The arguments lead to another host.")
    scheme, name, port = host.origin
    shown = f"[{name}]" if ":" in name else name
    header = shown if port == {"http": 80, "https": 443}[scheme] else f"{shown}:{port}"
    if host.transport is not None:
        return url, {}, header
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as e:
        raise ToolError(f"{name} cannot be found: {e}") from None
    numbers = [str(one[4][0]) for one in found]
    if not host.named and (closed := [n for n in numbers if not public(n)]):
        raise ToolError(f"{name} is the private address {closed[0]}, which a document may not name; only its user may.")
    return url.copy_with(host=numbers[0]), {"sni_hostname": name} if scheme == "https" else {}, header


def public(number: str) -> bool:
    """Whether an IP address is one of the open internet's, through IPv6's ways of writing IPv4 too."""
    ip = ipaddress.ip_address(number.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
    return ip.is_global and not ip.is_multicast


async def _text(response: "httpx.Response") -> str:
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > MOST_BYTES:
            break
    left = " or more" if len(data) > MOST_BYTES else ""
    if kind and not (kind.startswith("text/") or kind.endswith(("json", "xml", "yaml", "javascript", "urlencoded"))):
        return f"[{len(data)}{left} bytes of {kind[:80]}, which is no text]"
    text = bytes(data[:MOST_BYTES]).decode(response.charset_encoding or "utf-8", errors="replace")
    return text + (f"\n[the response is longer than {MOST_BYTES} bytes; the rest was not read]" if left else "")


def as_json(value: object) -> tuple[str, bytes]:
    """A body as it is sent."""
    return "application/json", json.dumps(value, ensure_ascii=False).encode(errors="replace")
