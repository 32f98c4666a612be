"""What the endpoints share: the models, who is being served, and whether anybody new may come in."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from myna.provider import Provider
from myna.provider.wire.error import write_error
from myna.provider.wire.moderations import Verdict
from myna.records import DEFAULTS, Json, RequestError, Sampling, Unavailable
from myna.serve.account import ACCOUNT
from myna.serve.answer import ignored_header
from myna.serve.keys import Keys
from myna.serve.limits import Limits
from myna.serve.metrics import Metrics
from myna.serve.models import Models
from myna.serve.served import Served

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
DEFAULTS_SHOWN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


def anything(_: Provider) -> bool:
    """Any model will do."""
    return True


def answers(provider: Provider) -> bool:
    """Whether it completes conversations and texts; an encoder does not."""
    return "chat" in getattr(provider, "capabilities", ("chat",))


@dataclass(slots=True)
class Desk:
    """`active` counts requests admitted and not yet answered. `failure` is why the server cannot go on. `check` is what
    /v1/moderations asks, if there is one. `adapters`: the folder
    whose sub-folders may be loaded by name. `strict_params`: fields that nobody knows are refused, and not only named."""

    models: Models
    limits: Limits
    keys: Keys
    metrics: Metrics
    draining: bool = False
    strict_params: bool = False
    active: int = 0
    failure: Exception | None = None
    check: Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]] | None = None
    adapters: Path | None = None
    since: int = field(default_factory=lambda: int(time.time()))

    @property
    def keepalive(self) -> float:
        return self.limits.keepalive

    @property
    def max_body(self) -> int:
        return self.limits.max_body

    @property
    def providers(self) -> Mapping[str, Served]:
        """The models that are in memory, by name."""
        return {model.name: model for model in self.models}

    @property
    def ready(self) -> bool:
        """Whether no model is being loaded or broken; one that was unloaded to make room is no reason to wait."""
        states = [slot.state for slot in self.models.slots.values()]
        return (
            not self.draining
            and not {"loading", "failed"} & {*states}
            and all(getattr(model, "ready", True) for model in self.models)
        )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request, before its body is read. Raises Unavailable while draining, or when there are too many."""
        if self.draining:
            raise Unavailable("The server is shutting down: it finishes what it has accepted.", retry_after=5)
        account = ACCOUNT.get()
        if self.active >= self.limits.max_active and not (account and account.background):
            raise Unavailable(f"{self.active} requests are being answered, and no more can be.", code="queue_full")
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def provider(self, model: str | None, can: Callable[[Served], bool] = anything) -> Served:
        """The model a request names, held for the rest of the request. Unnamed, it is the only one that can do what is asked.

        Raises Unavailable when it is not loaded (503), or when too many wait for it already (429).
        """
        slots = self.models.slots
        model = model or self._only(can)
        if not model or model not in slots:
            names = ", ".join(sorted(slots))
            asked = f"There is no model {model!r} here." if model else "The request names no model."
            raise RequestError(f"{asked} This server has: {names}.", param="model", code="model_not_found")
        served = self.models.get(model)
        account = ACCOUNT.get()
        if not (account and account.background):
            served.check_queue()
        return served

    def _only(self, can: Callable[[Served], bool]) -> str | None:
        """The one model that can, adapters apart. Of one that is not in memory nobody knows: it counts where no other can."""
        models = [slot for slot in self.models.slots.values() if slot.parent is None]
        able = [slot.name for slot in models if slot.served and can(slot.served)]
        able = able or [slot.name for slot in models if not slot.served]
        able = able or [slot.name for slot in models]  # the only one, which cannot, says so best
        return able[0] if len(able) == 1 else None

    def ignoring(self, names: tuple[str, ...]) -> dict[str, str]:
        """Headers that name the fields nobody knows. Raises RequestError, if strict_params, where there are any."""
        if names and self.strict_params:
            message = (
                f"{names[0]} is not known here, and this server takes no field that it does not know: leave it out."
            )
            raise RequestError(message, param=names[0], code="unknown_parameter")
        return ignored_header(names)

    def describe(self, name: str) -> Json:
        """A model as /v1/models shows it. What only a loaded model knows is null until it is loaded."""
        slot = self.models.slots[name]
        served = slot.served
        defaults: Sampling = getattr(served, "defaults", Sampling())
        return {
            "id": name,
            "object": "model",
            "created": self.since,
            "owned_by": "myna",
            "parent": slot.parent.name if slot.parent else None,
            "root": slot.root or name,
            "context_length": getattr(served, "max_len", None),
            "capabilities": [*getattr(served, "capabilities", ("chat", "completions"))] if served else None,
            "dialect": getattr(served, "details", {}).get("dialect"),
            "ready": slot.state == "ready" and bool(getattr(served, "ready", True)),
            "state": slot.state,
            "pinned": slot.pinned,
            "memory_bytes": slot.nbytes or None,
            "defaults": {name: getattr(defaults.resolve(DEFAULTS), name) for name in DEFAULTS_SHOWN},
            "details": getattr(served, "details", {}),
        }

    def refusal(self, error: Exception) -> tuple[int, Json, dict[str, str]]:
        """(status, body, headers) of an error."""
        return write_error(error, request_id=REQUEST_ID.get())
