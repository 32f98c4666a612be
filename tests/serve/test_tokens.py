"""Tokens over HTTP, under vLLM's names and llama.cpp's, with the model's own tokenizer as the judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Live

from myna.chat import Chat
from myna.provider import Scripted
from myna.records import Conversation

Start = Callable[..., Live]
HI = [{"role": "user", "content": "你好 <|im_end|> there"}]
CONVERSATION = Conversation.of(("user", "你好 <|im_end|> there"))


@pytest.fixture(scope="module")
def chat(smollm2: Path) -> Chat:
    return Chat.load(smollm2)


@pytest.fixture
def post(live: Start, chat: Chat) -> Callable[..., Any]:
    server = live(Scripted(chat=chat, max_len=100))
    return lambda path, **body: httpx.post(server.url + path, json=body, timeout=20)


@pytest.mark.parametrize("text", ["Hello, 世界! 👋", "", "<|im_start|>user"])
def test_what_is_tokenized_is_detokenized_again(post: Any, chat: Chat, text: str) -> None:
    reply = post("/tokenize", prompt=text, return_token_strs=True).json()
    ids = chat.tokenizer.encode(text)
    assert (reply["tokens"], reply["count"], reply["max_model_len"]) == (ids, len(ids), 100)
    assert len(reply["token_strs"]) == len(ids)
    again = post("/v1/detokenize", tokens=ids).json()
    assert again == {"prompt": text, "content": text}


def test_typed_control_tokens_are_control_tokens_only_where_asked(post: Any, chat: Chat) -> None:
    text = "<|im_start|>user"
    assert post("/tokenize", prompt=text).json()["tokens"] == chat.tokenizer.encode(text)
    assert post("/tokenize", content=text).json()["tokens"] == chat.tokenizer.encode_markup(text)
    assert post("/tokenize", content=text, parse_special=False).json()["tokens"] == chat.tokenizer.encode(text)


def test_pieces_are_text_or_bytes(post: Any) -> None:
    pieces = [row["piece"] for row in post("/tokenize", content="a👋", with_pieces=True).json()["tokens"]]
    octets = b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces)
    assert octets == "a👋".encode()


@pytest.mark.parametrize("open_turn", [True, False])
def test_a_conversation_is_the_very_prompt(post: Any, chat: Chat, open_turn: bool) -> None:
    rendered = chat.render(CONVERSATION, open_turn=open_turn)
    counted = post("/tokenize", messages=HI, add_generation_prompt=open_turn).json()
    applied = post("/apply-template", messages=HI, add_generation_prompt=open_turn).json()
    assert counted["tokens"] == applied["tokens"] == list(rendered.ids)
    assert applied["prompt"].endswith("<|im_start|>assistant\n") == open_turn
    assert applied["prompt"] == "".join(part["text"] for part in applied["segments"])
    typed = next(part for part in applied["segments"] if part["kind"] == "user")
    assert typed["text"] == CONVERSATION.messages[0].text


REFUSALS: list[tuple[str, Any, str]] = [
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": HI}, "messages"),
    ("/tokenize", {"prompt": "a" * 2_000_001}, "prompt"),
    ("/tokenize", {"messages": HI, "add_special_tokens": True}, "add_special_tokens"),
    ("/tokenize", {"messages": [{"role": "queen", "content": ""}]}, "messages.0.role"),
    ("/detokenize", {"tokens": [1, -1]}, "tokens.1"),
    ("/detokenize", {"tokens": [10**18]}, "tokens.0"),
    ("/detokenize", {"tokens": "a"}, "tokens"),
    ("/apply-template", {}, "messages"),
    ("/apply-template", {"messages": HI, "model": "other"}, "model"),
]


def test_refusals_name_the_field(post: Any) -> None:
    replies = [post(path, **body) for path, body, _ in REFUSALS]
    found = [(reply.status_code // 100, reply.json()["error"]["param"]) for reply in replies]
    assert found == [(4, param) for *_, param in REFUSALS]
