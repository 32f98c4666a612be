"""A recorded run as a provider: it says what was said then to the same request, and nothing else. No model, no network."""

from collections import defaultdict, deque
from collections.abc import AsyncGenerator

from myna.provider.powers import Powers
from myna.records import (
    CallPiece,
    Conversation,
    Delta,
    Document,
    ProviderError,
    Reply,
    RequestError,
    Sampling,
    ToolChoice,
    Usage,
)
from myna.records.form import KINDS
from myna.trace import Trace
from myna.trace.request import read_reply, read_request, request_hash


class Recorded:
    """Run `run` of a trace file. Equal requests are answered in the order in which they were made; a call that failed fails
    again with the same words. Raises RequestError where there is no such run."""

    def __init__(self, trace: Trace, run: int):
        self._store, self._run = trace.store, run
        query = """SELECT request, reply, error, model, prompt_tokens, completion_tokens, cached_tokens FROM calls
                   JOIN spans ON spans.id = calls.span WHERE run = ? AND outcome IN ('ok', 'error') ORDER BY spans.id"""
        rows = self._store.rows(query, run)
        if not rows:
            raise RequestError(f"run {run} of {self._store.path} has no calls; see `myna trace list`.", param="run")
        self.name: str = rows[0][3]
        self._requests = [row[0] for row in rows]
        self.powers = _asked([read_request(self._store, one) for one in dict.fromkeys(self._requests)])
        self._left: defaultdict[str, deque[tuple[str | None, str | None, Usage | None]]] = defaultdict(deque)
        for request, reply, error, _, *counts in rows:
            self._left[request].append((reply, error, None if None in counts else Usage(*counts)))

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream. RequestError says in what the nearest recorded request differs."""
        hash = request_hash(what, sampling)
        if not self._left[hash]:
            raise RequestError(
                f"run {self._run} made no such call{self._difference(what, sampling, hash)}.", code="not_recorded"
            )
        reply, error, usage = self._left[hash].popleft()
        if reply is not None:
            yield Delta()
            for delta in _deltas(read_reply(self._store, reply, usage or Usage())):
                yield delta
        if error is not None:
            raise ProviderError(error)
        if usage is not None:
            yield Delta(usage=usage)

    def _difference(self, what: Conversation | Document, sampling: Sampling, hash: str) -> str:
        if hash in self._requests:
            return f" more than {self._requests.count(hash)} times"
        found = [_differs(what, sampling, *read_request(self._store, one)) for one in dict.fromkeys(self._requests)]
        return f"; the nearest differs in {max(found)[1]}"


def _asked(requests: list[tuple[Conversation | Document, Sampling]]) -> Powers:
    """What an endpoint does of which just this would have been asked: whoever asked for a form, for calls, or for nothing but calls
    because they are kept there, has to ask for it again."""
    forms = {sampling.form.kind for _, sampling in requests if sampling.form}
    choices = {sampling.tool_choice for _, sampling in requests}
    return Powers(
        forms=tuple(kind for kind in KINDS if kind in forms),
        tools=any(isinstance(what, Conversation) and what.tools for what, _ in requests),
        arguments=ToolChoice("required", parallel=False) in choices,
        tried=1.0,  # what was not asked for is known not to be there
    )


def _deltas(reply: Reply) -> list[Delta]:
    """A reply in one piece a candidate."""
    found = []
    for k, (candidate, sampled) in enumerate(zip(reply.candidates, reply.sampled, strict=True)):
        message = candidate.messages[-1]
        calls = CallPiece.whole(message.tool_calls)
        found.append(Delta(k, message.text, message.reasoning_content or "", calls, sampled, candidate.finish_reason))
    return found


def _differs(
    what: Conversation | Document, sampling: Sampling, other: Conversation | Document, how: Sampling
) -> tuple[int, str]:
    """How far two requests are equal, and where they part."""
    if isinstance(what, Document) or isinstance(other, Document):
        return 0, "that one of them is a document and not a conversation" if type(what) is not type(
            other
        ) else "its text"
    pairs = zip(what.messages, other.messages, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(what.messages), len(other.messages)))
    if same < max(len(what.messages), len(other.messages)):
        return same, f"messages.{same}"
    if what.tools != other.tools:
        return same + 1, "tools"
    return same + 2, "how it is sampled" if sampling != how else "continues"
