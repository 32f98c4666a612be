"""POST /v1/messages and /v1/messages/count_tokens."""

from starlette.routing import Route

from myna.provider.wire.frames import NAMED_EVENTS
from myna.provider.wire.messages import read_count, read_messages
from myna.provider.wire.messages_writer import MessagesWriter
from myna.provider.wire.tokens import count
from myna.records import Json
from myna.serve.complete import Completions
from myna.serve.desk import Desk, answers
from myna.serve.tokens import Tokens, chat_of


def routes(desk: Desk) -> list[Route]:
    async def count_tokens(body: bytes) -> tuple[Json, tuple[str, ...]]:
        ask = read_count(body)
        chat = chat_of(desk.provider(ask.model, answers))
        return {"input_tokens": await tokens.work(count, chat, ask.prompts[0])}, ask.ignored

    tokens = Tokens(desk)
    return [
        Route("/v1/messages", Completions(desk, read_messages, MessagesWriter, NAMED_EVENTS), methods=["POST"]),
        Route("/v1/messages/count_tokens", tokens.endpoint(count_tokens), methods=["POST"]),
    ]
