"""A call's request and reply as what is stored: messages once by content, and a list of their hashes."""

import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import repeat
from typing import Any

from myna.records import (
    Candidate,
    Conversation,
    DataError,
    Document,
    Form,
    Json,
    Message,
    Reply,
    RequestError,
    Sampled,
    Sampling,
    Tokens,
    ToolChoice,
    Usage,
)
from myna.trace.store import Store, TraceError, canonical, digest, keep, keep_all

What = Conversation | Document


def write_request(db: sqlite3.Connection, what: What, sampling: Sampling) -> str:
    """Store the request; its hash, which depends on nothing but what the model sees and how it is sampled."""
    return keep(db, _request(what, sampling, lambda value: keep(db, value)))


def request_hash(what: What, sampling: Sampling) -> str:
    """The hash that `write_request` gives."""
    return digest(canonical(_request(what, sampling, lambda value: digest(canonical(value)))))


def _request(what: What, sampling: Sampling, kept: Any) -> Json:
    row: Json = {"sampling": write_sampling(sampling)}
    if isinstance(what, Document):
        return row | {"document": kept(replace(what, meta={}).to_json())}
    row["messages"] = [kept(message.to_json()) for message in what.messages]
    if what.tools:
        row["tools"] = kept(list(what.tools))
    return row | ({"continues": True} if what.continues else {})


@contextmanager
def _whole(store: Store, hash: str) -> Iterator[Any]:
    """A content that has the shape we write; TraceError where it has another. A trace file may be a stranger's."""
    row = store.content(hash)
    try:
        yield row
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, DataError, RequestError) as e:
        raise TraceError(f"{store.path}: the content {hash[:12]} is no request and no answer: {e}.") from None


def read_request(store: Store, hash: str) -> tuple[What, Sampling]:
    """What was asked, and how. Raises TraceError where it is damaged."""
    with _whole(store, hash) as row:
        return _read_request(store, row)


def _read_request(store: Store, row: Any) -> tuple[What, Sampling]:
    sampling = read_sampling(row["sampling"])
    if "document" in row:
        return Document.from_json(store.content(row["document"])), sampling
    messages = tuple(Message.from_json(store.content(one)) for one in row["messages"])
    tools = tuple(store.content(row["tools"])) if "tools" in row else ()
    return Conversation(messages, tools=tools, continues=row.get("continues", False)), sampling


def write_reply(db: sqlite3.Connection, reply: Reply) -> str:
    """Store a reply; its hash. A message is stored with its tokens, as it stands in the next request."""
    rows = []
    for candidate in reply.candidates:
        messages = [*candidate.messages]
        if messages and candidate.tokens is not None:
            messages[-1] = replace(messages[-1], tokens=candidate.tokens)
        rows.append(
            {"messages": keep_all(db, (one.to_json() for one in messages)), "finish_reason": candidate.finish_reason}
        )
    told = any(token.top or token.id is None for tokens in reply.sampled for token in tokens)  # more than tokens say
    sampled = [[_write_sampled(token) for token in tokens] for tokens in reply.sampled] if told else None
    return keep(db, {"candidates": rows} | ({"sampled": sampled} if sampled else {}))


def read_reply(store: Store, hash: str, usage: Usage) -> Reply:
    """The reply as it was: candidates with their tokens, and what was told of each token. A token's bytes are kept only where
    its alternatives are, or where it has no id. Raises TraceError where it is damaged."""
    with _whole(store, hash) as row:
        return _read_reply(store, row, usage)


def _read_reply(store: Store, row: Any, usage: Usage) -> Reply:
    candidates = []
    for one in row["candidates"]:
        messages = [Message.from_json(store.content(hash)) for hash in one["messages"]]
        if (tokens := messages[-1].tokens) is not None:
            messages[-1] = replace(messages[-1], tokens=None)
        candidates.append(Candidate(tuple(messages), tokens=tokens, finish_reason=one["finish_reason"]))
    if not candidates:
        raise ValueError("no candidates")
    sampled = tuple(tuple(_read_sampled(token) for token in tokens) for tokens in row.get("sampled", ()))
    return Reply(tuple(candidates), sampled or tuple(_from_tokens(one.tokens) for one in candidates), usage)


def _from_tokens(tokens: Tokens | None) -> tuple[Sampled, ...]:
    if tokens is None:
        return ()
    return tuple(Sampled(id, b"", logprob) for id, logprob in zip(tokens.ids, tokens.logprobs or repeat(None)))  # noqa: B905


def write_sampling(sampling: Sampling) -> Json:
    """What was said of how to sample; what was left open is left out."""
    return {
        f.name: asdict(value) if isinstance(value, Form | ToolChoice) else value
        for f in fields(sampling)
        if (value := getattr(sampling, f.name)) is not None
    }


def read_sampling(row: Json) -> Sampling:
    row = dict(row)
    if "form" in row:
        row["form"] = Form(**row["form"])
    if "tool_choice" in row:
        row["tool_choice"] = ToolChoice(**row["tool_choice"])
    if "stop" in row:
        row["stop"] = tuple(row["stop"])
    if "logit_bias" in row:
        row["logit_bias"] = tuple((token, bias) for token, bias in row["logit_bias"])
    return Sampling(**row)


def _write_sampled(token: Sampled) -> list[Any]:
    return [token.id, b64encode(token.piece).decode(), token.logprob, [_write_sampled(one) for one in token.top]]


def _read_sampled(row: list[Any]) -> Sampled:
    id, piece, logprob, top = row
    return Sampled(id, b64decode(piece), logprob, tuple(_read_sampled(one) for one in top))
