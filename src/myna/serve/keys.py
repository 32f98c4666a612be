"""API keys: who calls, and how much each may ask of the server.

A key is never kept, only its SHA-256. It is random (`new_key` draws 256 bits), so a slow hash would protect nothing more.
Key files are read and written by key_file.py.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Iterable

from starlette.datastructures import Headers

from myna.records import MynaError, RequestError, Unavailable

SHORTEST = 16  # characters of a key that somebody made up


class Bucket:
    """A token bucket: holds a minute's worth, and refills as evenly. May be overdrawn by what was known only afterwards."""

    def __init__(self, per_minute: float, now: float):
        self.per_minute, self.level, self._at = per_minute, float(per_minute), now

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` is there; 0 when it is there now."""
        self.level = min(self.per_minute, self.level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return max(0.0, (need - self.level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        self.level -= amount


class Caller:
    """Somebody with a key. Requests are counted when they come, tokens as they are computed."""

    def __init__(
        self, name: str, digest: bytes, requests_per_minute: float = math.inf, tokens_per_minute: float = math.inf
    ):
        now = time.monotonic()
        self.name, self.digest = name, digest
        self._requests = Bucket(requests_per_minute, now) if requests_per_minute < math.inf else None
        self._tokens = Bucket(tokens_per_minute, now) if tokens_per_minute < math.inf else None

    def admit(self, now: float | None = None) -> None:
        """Count one request. Raises Unavailable (a 429) over either limit; a refused request counts nothing."""
        now = time.monotonic() if now is None else now
        for what, bucket, need in (("requests", self._requests, 1.0), ("tokens", self._tokens, 1e-9)):
            if bucket and (seconds := bucket.wait(need, now)):
                raise Unavailable(
                    f"The key {self.name!r} may use {bucket.per_minute:g} {what} a minute, and has.",
                    retry_after=max(1, math.ceil(seconds)),
                    code="rate_limit_exceeded",
                )
        if self._requests:
            self._requests.take(1)

    def charge(self, tokens: int) -> None:
        """Tokens that were computed for this key: prompt and answer."""
        if self._tokens:
            self._tokens.take(tokens)


class Keys:
    """The keys that may call. Falsy when there are none: then whoever reaches the port may."""

    def __init__(self, callers: Iterable[Caller] = ()):
        self._callers = [*callers]
        names = [caller.name for caller in self._callers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise MynaError(f"Two API keys have the name {sorted(twice)[0]!r}; each needs its own.")

    def __bool__(self) -> bool:
        return bool(self._callers)

    def named(self, name: str) -> Caller | None:
        """The caller of that name, if there still is one."""
        return next((caller for caller in self._callers if caller.name == name), None)

    def identify(self, headers: Headers) -> Caller | None:
        """Whose key a request carries, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; None where there are no keys.

        Raises RequestError (a 401). Every digest is compared, each in constant time: how long it takes tells nothing.
        """
        if not self._callers:
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise RequestError(
                "This server asks for an API key, as `Authorization: Bearer KEY`.",
                param="Authorization",
                code="invalid_api_key",
            )
        digest = hash_key(key)
        found = [caller for caller in self._callers if hmac.compare_digest(caller.digest, digest)]
        if not found:
            raise RequestError("This API key is not known here.", param="Authorization", code="invalid_api_key")
        return found[0]


NO_KEYS = Keys()


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def new_key() -> str:
    return f"myna-{secrets.token_urlsafe(32)}"


def key_of(key: str, name: str = "default") -> Caller:
    """A caller by the key itself, as a flag or a variable gives it. Raises MynaError on one that could be guessed."""
    if len(key) < SHORTEST:
        raise MynaError(f"The API key has {len(key)} characters; at least {SHORTEST}. A good one: {new_key()}")
    return Caller(name, hash_key(key))
