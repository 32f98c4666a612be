"""Who may talk to the server. A page on the web must not reach a model on this machine through its visitor's browser.

Two ways in, two checks: a name that resolves to 127.0.0.1 (DNS rebinding) shows in Host; a plain cross-site request,
whose effect needs no answer, shows in Origin.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from myna.records import RequestError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"", "0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class Guard:
    """`hosts` are the names we answer to, `allow_origin` another site that may call us ("*" is any), None nobody."""

    hosts: frozenset[str] = LOOPBACK
    any_address: bool = False
    allow_origin: str | None = None

    @classmethod
    def of(cls, bound: str, hosts: Iterable[str] = (), allow_origin: str | None = None) -> "Guard":
        """For a server bound to `bound`. On every interface any address is ours; names still have to be given."""
        return cls(LOOPBACK | {bound.lower()} | {h.lower() for h in hosts}, bound in WILDCARDS, allow_origin)

    def check(self, headers: Headers) -> None:
        """Raises RequestError (a 403) on a Host or an Origin that is not ours."""
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            raise RequestError(
                f"This server does not answer to the host {host!r}. Start it with --allow-host to add one.",
                param="Host",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_welcome(origin, host):
            raise RequestError(
                f"Pages of {origin!r} may not call this server. Start it with --allow-origin to let them.",
                param="Origin",
                code="origin_not_allowed",
            )

    def cors(self, headers: Headers) -> dict[str, str]:
        """Headers that let the allowed origin read the answer; none for anybody else."""
        origin = headers.get("origin")
        if origin is None or self.allow_origin not in (origin, "*"):
            return {}
        return {
            "access-control-allow-origin": self.allow_origin,
            "access-control-allow-methods": "GET, POST, OPTIONS",
            # Authorization is never covered by "*", and a client's own headers (x-stainless-...) cannot be foreseen.
            "access-control-allow-headers": headers.get(
                "access-control-request-headers", "authorization, content-type"
            ),
            "access-control-expose-headers": "x-request-id, x-ignored-params, retry-after",
            "access-control-max-age": "600",
            "vary": "origin, access-control-request-headers",
        }

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self.hosts or (self.any_address and _is_address(name))

    def _is_welcome(self, origin: str, host: str | None) -> bool:
        if self.allow_origin in (origin, "*"):
            return True
        scheme, _, authority = origin.partition("://")
        return scheme in ("http", "https") and authority.lower() == (host or "").lower()


THIS_MACHINE = Guard()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
