"""An answer on its way from the engine's thread to the event loop of whoever reads it."""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from myna.chat import Chat, Rendered, TextDelta, TextStream, schemas
from myna.provider.tools import bound_text
from myna.records import Conversation, Delta, Document, ProviderError, Sampled, Sampling, ToolChoice, Usage

if TYPE_CHECKING:
    from myna.engine.engine import Update
    from myna.engine.loop import Ticket

# Deltas that may wait for a slow reader. Beyond HIGH its request is held, so memory does not grow with what it asked for;
# below LOW it goes on. A step brings one for each candidate, or a few where guesses were right.
HIGH, LOW = 256, 64


class Inbox:
    """What one reader has not taken yet. Used on its event loop only."""

    ticket: "Ticket"

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Delta | ProviderError] = asyncio.Queue()
        self._held = False

    def put(self, news: Delta | ProviderError) -> None:
        self._waiting.put_nowait(news)
        if self._waiting.qsize() > HIGH and not self._held:
            self._held = True
            self.ticket.hold()

    async def get(self) -> Delta:
        news = await self._waiting.get()
        if self._held and self._waiting.qsize() < LOW:
            self._held = False
            self.ticket.resume()
        if isinstance(news, ProviderError):
            raise news
        return news


class Mail:
    """News on the way from the engine's thread to event loops. A step's news go in one call: waking a loop takes a system
    call and the interpreter's lock, for which 32 streams would contend 32 times a step."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[Inbox, Delta | ProviderError]]] = {}

    def put(self, events: asyncio.AbstractEventLoop, inbox: Inbox, news: Delta | ProviderError) -> None:
        self._waiting.setdefault(events, []).append((inbox, news))

    def deliver(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for events, letters in waiting.items():
            with suppress(RuntimeError):  # closed: nobody will read them
                events.call_soon_threadsafe(_hand_out, letters)


def _hand_out(letters: list[tuple[Inbox, Delta | ProviderError]]) -> None:
    for inbox, news in letters:
        inbox.put(news)


class Answer:
    """Turns the engine's updates of one request into deltas. Lives on the engine's thread."""

    def __init__(self, chat: Chat, what: Conversation | Document, rendered: Rendered, sampling: Sampling):
        n = sampling.n or 1
        talk = what if isinstance(what, Conversation) else Conversation(())
        self.tokenizer = chat.tokenizer
        self.choice = sampling.tool_choice or ToolChoice()
        self.texts: list[TextStream] = [
            chat.text_stream(
                sampling.stop or (),
                open_reasoning=rendered.open_reasoning,
                continues=rendered.continues,
                begun=rendered.begun,
                tools=schemas(talk.tools),
                taken=[call.id for message in talk.messages for call in message.tool_calls],
                parallel=self.choice.parallel,
                bound=bound_text(talk, sampling),
            )
            for _ in range(n)
        ]
        self.stopped = [False] * n
        self.running = n
        self.prompt_tokens, self.completion_tokens, self.cached_tokens = len(rendered.ids), 0, 0
        self.came, self.queued, self.prefilled = time.perf_counter(), 0.0, 0.0

    def read(self, update: "Update") -> Delta | ProviderError:
        k, choice = update.candidate, update.choice
        if choice is None:
            return ProviderError(f"the engine ended this answer: {update.error}", status=500)
        if self.completion_tokens == 0:
            self.queued = update.began - self.came
            self.prefilled = time.perf_counter() - update.began
        self.completion_tokens += 1
        if k == 0:
            self.cached_tokens = update.cached
        token = Sampled(choice.id, self.tokenizer.piece(choice.id), choice.logprob, self._alternatives(choice.top))
        text = self.texts[k].push(choice.id)
        self.stopped[k] = text.stopped
        finish = "stop" if text.stopped else update.finish_reason
        if finish is not None:
            rest = TextDelta() if text.stopped else self.texts[k].finish()
            text = TextDelta(text.text + rest.text, text.reasoning + rest.reasoning, text.calls + rest.calls)
            finish = self._reason(k, finish)
            self.running -= 1
        usage = None
        if self.running == 0:
            usage = Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.queued, self.prefilled)
        return Delta(
            k, text.text, text.reasoning, text.calls, (token,), finish, self.texts[k].met if finish else None, usage
        )

    def _reason(self, candidate: int, finish: str) -> str:
        """As OpenAI has it: an answer that ended by itself after its calls ends with tool_calls, but with stop where the
        request named the tool."""
        called = finish == "stop" and self.texts[candidate].called and not self.texts[candidate].cut
        return "tool_calls" if called and self.choice.mode != "named" else finish

    def _alternatives(self, top: tuple[tuple[int, float], ...]) -> tuple[Sampled, ...]:
        return tuple(Sampled(id, self.tokenizer.piece(id), logprob) for id, logprob in top)
