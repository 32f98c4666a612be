"""What the endpoints share: the models, who is being served, and whether anybody new may come in."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from myna.provider import Provider
from myna.provider.wire.error import write_error
from myna.records import DEFAULTS, Json, RequestError, Sampling, Unavailable

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
DEFAULTS_SHOWN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


@dataclass(slots=True)
class Desk:
    """`active` counts requests admitted and not yet answered. `keepalive` and `max_body`: seconds and bytes."""

    providers: Mapping[str, Provider]
    keepalive: float
    max_body: int
    draining: bool = False
    active: int = 0
    since: int = field(default_factory=lambda: int(time.time()))

    @property
    def ready(self) -> bool:
        return not self.draining and all(is_ready(provider) for provider in self.providers.values())

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request. Raises Unavailable while draining."""
        if self.draining:
            raise Unavailable("The server is shutting down: it finishes what it has accepted.", retry_after=5)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def provider(self, model: str | None) -> Provider:
        """The model a request names. With one model it may be left unnamed."""
        if not model and len(self.providers) == 1:
            model = next(iter(self.providers))
        if not model or model not in self.providers:
            names = ", ".join(sorted(self.providers))
            asked = f"There is no model {model!r} here." if model else "The request names no model."
            raise RequestError(f"{asked} This server has: {names}.", param="model", code="model_not_found")
        provider = self.providers[model]
        if not is_ready(provider):
            raise Unavailable(f"{model} is still loading.", retry_after=2)
        return provider

    def describe(self, name: str) -> Json:
        """A model as /v1/models shows it."""
        provider = self.providers[name]
        defaults: Sampling = getattr(provider, "defaults", Sampling())
        return {
            "id": name,
            "object": "model",
            "created": self.since,
            "owned_by": "myna",
            "context_length": getattr(provider, "max_len", None),
            "ready": is_ready(provider),
            "defaults": {name: getattr(defaults.resolve(DEFAULTS), name) for name in DEFAULTS_SHOWN},
            "details": getattr(provider, "details", {}),
        }

    def refusal(self, error: Exception) -> tuple[int, Json, dict[str, str]]:
        """(status, body, headers) of an error: not ready is a 503, ready and still refusing a 429."""
        return write_error(error, ready=self.ready, request_id=REQUEST_ID.get())


def is_ready(provider: Provider) -> bool:
    return bool(getattr(provider, "ready", True))
