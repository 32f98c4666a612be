"""Tokens on the wire: what a text or a conversation is to the model, and what ids say.

The names are vLLM's (prompt or messages in; count, max_model_len, tokens, token_strs out) and llama.cpp's (content in, tokens
out); a request that speaks one is answered in it.
Sources: https://docs.vllm.ai (tokenizer API), llama.cpp's tools/server/README.md; both 2026.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from myna.chat import Chat, Passages, Rendered
from myna.provider.wire.body import read_body, unsupported
from myna.provider.wire.request import read_chat
from myna.records import Conversation, Document, Json, RequestError

MAX_TEXT = 2_000_000  # characters; 15 million take the tokenizer half a minute and 3 GB


class TokenizeBody(BaseModel):
    """POST /tokenize: one of `prompt` (vLLM), `content` (llama.cpp) and `messages`, which is chat's with its tools."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    return_token_strs: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    tokens: list[int]
    model: str | None = None


class TemplateBody(BaseModel):
    """POST /apply-template: chat's messages and tools."""

    model_config = ConfigDict(strict=True, extra="allow")
    messages: list[dict[str, Any]]
    model: str | None = None
    add_generation_prompt: bool | None = None


OWN_FIELDS = set(TokenizeBody.model_fields) - {"messages", "model"}


@dataclass(frozen=True, slots=True)
class TokensAsk:
    """What to turn into tokens. `sent` says in which names to answer.

    open_turn   whether the markup follows after which the assistant is to speak
    special     for a document: whether control tokens typed in it are meant
    opening     for a document: whether it begins with what the tokenizer puts before a text
    """

    what: Conversation | Document
    sent: Json
    model: str | None = None
    open_turn: bool = True
    special: bool = False
    opening: bool = True
    ignored: tuple[str, ...] = ()


def read_tokenize(raw: bytes) -> TokensAsk:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, TokenizeBody, {})
    given = [name for name in ("prompt", "content", "messages") if getattr(body, name) is not None]
    if len(given) != 1:
        message = "Send one of prompt, content and messages" + (f", not {' and '.join(given)}." if given else ".")
        raise RequestError(message, param=given[-1] if given else "prompt", code="missing_required_parameter")
    if body.messages is not None:
        if body.add_special_tokens or body.add_special:
            raise unsupported("add_special_tokens", True, "the template writes the control tokens of a conversation")
        return _read_messages(json, body.add_generation_prompt)
    text = body.prompt if body.content is None else body.content
    native = body.content is not None
    opening = body.add_special if native else body.add_special_tokens is not False
    special = body.parse_special if body.parse_special is not None else native
    document = Document(_limited(text or "", given[0]))
    return TokensAsk(document, json, body.model, special=special, opening=bool(opening), ignored=ignored)


def read_template(raw: bytes) -> TokensAsk:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, _ = read_body(raw, TemplateBody, {})
    return _read_messages(json, body.add_generation_prompt)


def read_detokenize(raw: bytes) -> tuple[str | None, tuple[int, ...], tuple[str, ...]]:
    """(model, ids, ignored fields)."""
    _, body, ignored = read_body(raw, DetokenizeBody, {})
    return body.model, tuple(body.tokens), ignored


def tokenize(chat: Chat | Passages, ask: TokensAsk, max_len: int | None) -> Json:
    """An encoder's ids come in its frame, such as [CLS] and [SEP], where an answering model's begin with what opens a text."""
    ids = list(_ids(chat, ask))
    if ask.sent.get("content") is None:
        strs = [_shown(chat, id) for id in ids] if ask.sent.get("return_token_strs") else None
        return {"count": len(ids), "max_model_len": max_len, "tokens": ids, "token_strs": strs}
    if ask.sent.get("with_pieces"):
        return {"tokens": [{"id": id, "piece": _piece(chat.tokenizer.piece(id))} for id in ids]}
    return {"tokens": ids}


def detokenize(chat: Chat | Passages, ids: tuple[int, ...]) -> Json:
    """The text of ids, control tokens by their names: under vLLM's name and under llama.cpp's."""
    pieces = []
    for i, id in enumerate(ids):
        piece = chat.tokenizer.piece(id) if id >= 0 else b""
        if not piece and not 0 <= id < chat.tokenizer.vocab_size:
            message = f"tokens.{i}: {id} is no token; ids go from 0 to {chat.tokenizer.vocab_size - 1}."
            raise RequestError(message, param=f"tokens.{i}")
        pieces.append(piece)
    text = b"".join(pieces)
    if chat.tokenizer.strips_blank:
        text = text.removeprefix(b" ")
    said = text.decode("utf-8", "replace")
    return {"prompt": said, "content": said}


def apply_template(chat: Chat, ask: TokensAsk) -> Json:
    """The prompt as the template writes it, its ids, and who wrote which part of it."""
    rendered = _render(chat, ask)
    segments = [{"kind": s.kind, "text": s.text, "start": s.start, "end": s.end} for s in rendered.segments]
    return {"prompt": "".join(s.text for s in rendered.segments), "tokens": list(rendered.ids), "segments": segments}


def count(chat: Chat, what: Conversation) -> int:
    """How many tokens the prompt of a conversation has."""
    return len(_render(chat, TokensAsk(what, {})).ids)


def _ids(chat: Chat | Passages, ask: TokensAsk) -> tuple[int, ...]:
    if isinstance(ask.what, Conversation):
        if isinstance(chat, Passages):
            raise unsupported("messages", "a conversation", "this model is an encoder, which has no template for one")
        return _render(chat, ask).ids
    plain = chat.encode if isinstance(chat, Passages) else chat.tokenizer.encode
    ids = (chat.tokenizer.encode_markup if ask.special else plain)(ask.what.text)
    if not ask.opening:
        return tuple(ids)
    return chat.one(ids).ids if isinstance(chat, Passages) else (*chat.tokenizer.opening, *ids)


def _render(chat: Chat, ask: TokensAsk) -> Rendered:
    assert isinstance(ask.what, Conversation)
    _limited("".join(message.text for message in ask.what.messages), "messages")
    return chat.render(ask.what, open_turn=ask.open_turn)


def _read_messages(json: Json, open_turn: bool | None) -> TokensAsk:
    """Chat's own reader takes the rest of the body."""
    ask = read_chat(orjson.dumps({name: value for name, value in json.items() if name not in OWN_FIELDS}))
    prompt = ask.prompts[0]
    return TokensAsk(prompt, json, ask.model, open_turn=open_turn is not False, ignored=ask.ignored)


def _limited(text: str, param: str) -> str:
    if len(text) > MAX_TEXT:
        raise RequestError(f"{param} has {len(text):,} characters; at most {MAX_TEXT:,}.", param=param)
    return text


def _shown(chat: Chat | Passages, id: int) -> str:
    return chat.tokenizer.piece(id).decode("utf-8", "replace")


def _piece(piece: bytes) -> str | list[int]:
    """llama.cpp gives the bytes of a token that is not UTF-8 by itself."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
