"""The models of a server: which are in memory, which may be loaded into it, and who goes when there is no room.

A model that this server was started with, or was told to load, is loaded again when a request names it. Loading and
unloading happen on threads, one at a time, so that the sum of memory is right.
"""

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from myna.provider import Provider
from myna.records import MynaError, ProviderError, RequestError, Unavailable
from myna.serve.account import ACCOUNT
from myna.serve.served import Served

log = logging.getLogger("myna.serve")
LOAD_RATE = 300e6  # bytes a second of a first load; packed weights that are there already take a tenth of the time
LOOK_AFTER = 5.0  # seconds between two looks for idle models
State = Literal["loading", "ready", "unloading", "unloaded", "failed"]


@dataclass(frozen=True, slots=True)
class Loadable:
    """A model that can be loaded. `load` takes seconds, `nbytes` (what it will take in memory) less; both are called on a
    thread, and raise MynaError. `size`: bytes of its files; `digest`: a sha256 of what is in them, "" where nobody knows."""

    name: str
    load: Callable[[], Provider]
    nbytes: Callable[[], int]
    size: int = 0
    digest: str = ""


@dataclass(slots=True)
class Slot:
    """A model's place. `uses` counts the requests that hold it; while there are any it is not unloaded. `idle`: seconds without
    a request after which it is, if not as many as for all. An adapter has a place of its own: it lives in its
    `parent`, which stays as long as it is used, and `root` is its folder's name."""

    name: str
    loadable: Loadable | None = None  # None: it came loaded, and stays
    pinned: bool = False
    state: State = "loading"  # whoever adds it loads it next
    served: Served | None = None
    nbytes: int = 0
    uses: int = 0
    used_at: float = 0.0
    idle: float | None = None
    error: str = ""
    parent: "Slot | None" = None
    root: str = ""
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self) -> None:
        """For the rest of the request that runs."""
        account = ACCOUNT.get()
        self.used_at = time.monotonic()
        if account is not None:
            self.uses += 1
            account.at_end.append(self.release)
        if self.parent:
            self.parent.hold()

    def release(self) -> None:
        self.uses -= 1
        self.used_at = time.monotonic()
        if not self.uses:
            self.unused.set()


class Models:
    """
    serve     wraps a loaded provider under its name here
    find      a model that nobody named at the start, by its name; RequestError where there is none. None: nobody may
    budget    bytes that all loaded models may take together
    adapters  bytes that all loaded adapters may take together
    idle      seconds without a request after which a model that is not pinned is unloaded
    """

    def __init__(
        self,
        serve: Callable[[str, Provider], Served],
        *,
        find: Callable[[str], Loadable] | None = None,
        budget: float = math.inf,
        adapters: float = math.inf,
        idle: float = math.inf,
    ):
        self.slots: dict[str, Slot] = {}
        self._serve, self._find, self._budget, self._idle = serve, find, budget, idle
        self._adapters = adapters
        self._one_at_a_time = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, model: Provider | Loadable, *, name: str = "", pinned: bool = False) -> Slot:
        """A model that is here already, or one to be loaded next. `name`: what it is called here, if not by its own."""
        slot = Slot(name or model.name, pinned=pinned)
        if isinstance(model, Loadable):
            slot.loadable = model
        else:
            slot.served, slot.state = self._serve(slot.name, model), "ready"
        self.slots[slot.name] = slot
        return slot

    def __iter__(self) -> Iterator[Served]:
        return iter([slot.served for slot in self.slots.values() if slot.served is not None])

    def get(self, name: str) -> Served:
        """The model, held for the rest of this request. Raises Unavailable while it is being loaded, which this begins."""
        slot = self.slots[name]
        if slot.state == "failed":
            slot.state = "unloaded"  # the next request tries again
            raise ProviderError(f"{name} could not be loaded: {slot.error}", status=500)
        if slot.served is None or slot.state != "ready":
            if slot.state == "unloaded":
                self._begin(slot)
            raise Unavailable(f"{name} is {slot.state}.", retry_after=_seconds_to_load(slot))
        if not getattr(slot.served, "ready", True):
            raise Unavailable(f"{name} is still loading.", retry_after=2)
        slot.hold()
        return slot.served

    async def load(self, name: str, *, pinned: bool | None = None) -> Slot:
        """Have this model in memory, and return when it is. Raises MynaError when it is unknown, or there is no room."""
        if name not in self.slots:
            if self._find is None:
                raise _unknown(name)
            found = await asyncio.to_thread(self._find, name)
            if name not in self.slots:  # somebody else may have been as quick
                self.add(found)
        slot = self.slots[name]
        slot.pinned = slot.pinned if pinned is None else pinned
        try:
            await self._load(slot)
        except MynaError:
            slot.state = "unloaded"  # whoever asked hears of it
            raise
        return slot

    async def unload(self, name: str) -> Slot:
        """Let it go when its last request has ended; until then it takes no new ones."""
        if (slot := self.slots.get(name)) is None:
            raise _unknown(name)
        if slot.loadable is None:
            raise RequestError(f"{name} was given to this server as it is; it cannot be unloaded.", param="model")
        async with self._one_at_a_time:
            await self._unload(slot)
        return slot

    def keep(self, name: str, seconds: float | None) -> bool:
        """Have a loaded model stay so many seconds after its last request; None is what the server usually does. False where
        that is not for a request to say: the model is pinned, or came with the server. Nobody's model stays when another
        needs the room: only who runs the server pins."""
        slot = self.slots.get(name)
        if slot is None or slot.loadable is None or slot.pinned:
            return seconds is None
        if slot.state == "ready":
            slot.idle = seconds
        return True

    def leaves_in(self, slot: Slot) -> float:
        """Seconds until it is unloaded if nobody asks for it; infinite if it is not."""
        if slot.pinned or slot.loadable is None:
            return math.inf
        return (self._idle if slot.idle is None else slot.idle) - (time.monotonic() - slot.used_at)

    async def forget(self, name: str) -> Slot:
        """Unload it, and know it no more."""
        slot = await self.unload(name)
        self.slots.pop(name, None)
        return slot

    async def keep_house(self) -> None:
        """Load what the server was started with, and unload what nobody asked for in a while. Runs for ever."""
        for name in [*self.slots]:
            await self.load(name)
        while True:
            await asyncio.sleep(min(self._idle / 4, LOOK_AFTER))
            await self._unload_idle()

    async def _unload_idle(self) -> None:
        for slot in [*self.slots.values()]:
            if _may_go(slot) and self.leaves_in(slot) < 0:
                log.info("%s was not asked for in %.0f s", slot.name, time.monotonic() - slot.used_at)
                await self.unload(slot.name)

    async def close(self) -> None:
        """Stop what is being loaded or unloaded, and every engine that was loaded here."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for slot in self.slots.values():
            if slot.served is not None and slot.loadable is not None:
                await asyncio.to_thread(_close, slot.served)

    def _begin(self, slot: Slot) -> None:
        """Load it, and let nobody wait."""

        async def run() -> None:
            try:
                await self._load(slot)
            except Exception as e:
                slot.state, slot.error = "failed", str(e) if isinstance(e, MynaError) else type(e).__name__
                log.exception("%s could not be loaded", slot.name)

        slot.state = "loading"
        self._tasks[slot.name] = asyncio.create_task(run())

    async def _load(self, slot: Slot) -> None:
        async with self._one_at_a_time:
            if slot.parent is None:
                await self._fill(slot)
                return
            slot.parent.uses += 1  # it must not go to make room for its own adapter
            try:
                await self._fill(slot.parent)
                await self._fill(slot)
            finally:
                slot.parent.release()

    async def _fill(self, slot: Slot) -> None:
        if slot.state == "ready" or slot.loadable is None:
            return
        slot.state = "loading"
        slot.nbytes = await asyncio.to_thread(slot.loadable.nbytes)
        if slot.parent:
            self._check_adapters(slot)
        await self._make_room(slot)
        started = time.monotonic()
        provider = await asyncio.to_thread(slot.loadable.load)
        slot.idle = None
        slot.served, slot.state, slot.used_at = self._serve(slot.name, provider), "ready", time.monotonic()
        log.info("%s is loaded: %.2f GB, %.1f s", slot.name, slot.nbytes / 1e9, slot.used_at - started)

    def _check_adapters(self, slot: Slot) -> None:
        """RequestError when this adapter does not fit beside the others."""
        others = [s for s in self.slots.values() if s.parent and s.served]
        if (taken := sum(s.nbytes for s in others)) + slot.nbytes > self._adapters:
            names = ", ".join(s.name for s in others) or "none"
            raise RequestError(
                f"{slot.name} needs {slot.nbytes / 1e6:.1f} MB; the adapters that are loaded ({names}) have {taken / 1e6:.1f} MB "
                f"of {self._adapters / 1e6:.1f} (--adapters-gb). Unload one: POST /v1/unload_lora_adapter",
                param="lora_name",
                code="no_room",
            )

    async def _make_room(self, slot: Slot) -> None:
        """Unload the least recently used until this one fits. Raises MynaError with the sum when it cannot."""
        while (taken := sum(s.nbytes for s in self.slots.values() if s.served)) + slot.nbytes > self._budget:
            unused = sorted(filter(_may_go, self.slots.values()), key=lambda s: s.used_at)
            if not unused:
                loaded = ", ".join(_described(s) for s in self.slots.values() if s.served) or "nothing"
                message = (
                    f"{slot.name} needs {slot.nbytes / 1e9:.2f} GB; loaded are {loaded}, {taken / 1e9:.2f} GB together, of "
                    f"{self._budget / 1e9:.2f} GB (--memory-gb)."
                )
                if any(s.uses and not s.pinned for s in self.slots.values()):
                    raise Unavailable(f"{message} Some are in use.", retry_after=5)
                raise RequestError(f"{message} Unload one: POST /v1/models/unload", param="model", code="no_room")
            await self._unload(unused[0])

    async def _unload(self, slot: Slot) -> None:
        if slot.served is None:
            slot.state = "unloaded"
            return
        slot.state = "unloading"
        for adapter in [s for s in self.slots.values() if s.parent is slot]:
            await self._unload(adapter)
        while slot.uses:
            slot.unused.clear()
            await slot.unused.wait()
        served, slot.served = slot.served, None
        await asyncio.to_thread(_close, served)
        del served
        gc.collect()  # weights in a cycle would stay until somebody happens to collect
        slot.state = "unloaded"
        log.info("%s is unloaded", slot.name)


def _close(served: Served) -> None:
    if close := getattr(served, "close", None):
        close()


def _may_go(slot: Slot) -> bool:
    return slot.state == "ready" and slot.loadable is not None and not slot.pinned and not slot.uses


def _described(slot: Slot) -> str:
    why = "pinned" if slot.pinned else "in use" if slot.uses else slot.state
    return f"{slot.name} ({slot.nbytes / 1e9:.2f} GB, {why})"


def _unknown(name: str) -> RequestError:
    return RequestError(f"There is no model {name!r} here.", param="model", code="model_not_found")


def _seconds_to_load(slot: Slot) -> int:
    return max(2, min(60, math.ceil(slot.nbytes / LOAD_RATE)))
