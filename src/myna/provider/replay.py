"""A model of no weights that says given tokens through the real engine: for tests of all that is around a model.

provider = replay(["Hello.", [228, 189, 160, 257]])          one answer a request, in the order they come
provider = replay(lambda request, candidate: request.ids)     an echo
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from myna.chat import Chat
from myna.chat.byte_chat import byte_chat, ids_of
from myna.provider.local import Local

if TYPE_CHECKING:
    from myna.engine.replay import Answers


def replay(
    answers: "Iterable[str | Sequence[int]] | Answers",
    *,
    name: str = "replay",
    chat: Chat | None = None,
    kv_tokens: int = 1 << 14,
    max_len: int = 1 << 13,
    max_running: int = 64,
    budget: int = 512,
    seconds: float = 0.0,
) -> Local:
    """A Local whose k-th request says the k-th answer, in each of its candidates.

    answers   token ids, or text, which is tokenized; or a function of the request and the candidate. Lists are said as they
              are; a request beyond the last answer, and an answer beyond its last token, ends
    chat      whose tokenizer and template; bytes and ChatML if left out
    seconds   how long each step takes
    """
    from myna.engine.blocks import Blocks, blocks_for
    from myna.engine.engine import Engine
    from myna.engine.loop import Loop
    from myna.engine.replay import ReplayRunner
    from myna.engine.schedule import Scheduler

    chat = chat or byte_chat()
    said = answers if callable(answers) else _in_order(answers, chat)
    vocab = chat.tokenizer.vocab_size
    scheduler = Scheduler(Blocks(blocks_for(kv_tokens)), budget=budget, max_running=max_running)
    runner = ReplayRunner(said, min(chat.stop_ids), seconds)
    engine = Engine(runner, scheduler, max_len=min(max_len, kv_tokens), vocab=vocab)
    return Local(Loop(engine), chat, name=name)


def _in_order(answers: Iterable[str | Sequence[int]], chat: Chat) -> "Answers":
    said = [_ids(answer, chat) for answer in answers]
    return lambda request, candidate: said[request.id] if request.id < len(said) else ()


def _ids(answer: str | Sequence[int], chat: Chat) -> Sequence[int]:
    if not isinstance(answer, str):
        return answer
    return ids_of(answer) if chat is byte_chat() else [*chat.tokenizer.encode(answer), min(chat.stop_ids)]
