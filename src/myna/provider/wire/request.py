"""A request on the wire: a conversation (chat) or documents (completions), with how to sample."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from myna.provider.wire.body import SamplingBody, check_sampling, read_body, read_stop, shown, unsupported
from myna.provider.wire.calls import Calls
from myna.provider.wire.form import FIELDS as FORM_FIELDS
from myna.provider.wire.form import read_form, write_form
from myna.provider.wire.tools import Tool, read_choice, write_choice
from myna.records import Conversation, DataError, Document, Json, Message, RequestError, Sampling, Tokens

MAX_PROMPTS = 1024
MAX_CHOICES = 1024


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for. Chat has one prompt; completions may have several, each answered `sampling.n` times.

    `ignored` are the dotted paths of fields that we do not know; they had no effect. `sent` is the body, for answers that
    repeat some of it. `keep_alive`: seconds that the model is to stay in memory afterwards; None leaves it to the server. `names`: what
    this API calls the fields that a provider complains of.
    """

    prompts: tuple[Conversation | Document, ...]
    sampling: Sampling
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    ignored: tuple[str, ...] = ()
    sent: Json = field(default_factory=dict)
    keep_alive: float | None = None
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def choices(self) -> int:
        """How many answers: candidate k of prompt i is choice i * n + k."""
        return len(self.prompts) * (self.sampling.n or 1)


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    include_usage: bool | None = None


class Shared(SamplingBody):
    """Fields of both endpoints."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    stop: Any = None
    max_tokens: int | None = None
    n: int | None = None
    # What the answer must look like; form.py reads them.
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    json_schema: Any = None
    grammar: Any = None


class ChatBody(Shared):
    messages: list[dict[str, Any]]
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    # As vLLM has them: the last message is an answer that is begun, and the model goes on with it.
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class CompletionBody(Shared):
    prompt: Any
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None


# Fields that would change the answer and that we cannot honour yet, with the values that ask for nothing.
# A request that uses one is refused: an answer that quietly ignores a schema is worse than none.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "best_of": (1,),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "truncation": ("disabled",),
    "use_beam_search": (False,),
}
CHAT_UNSUPPORTED = {
    name: fine for name, fine in UNSUPPORTED.items() if name not in ("continue_final_message", "add_generation_prompt")
}
SAMPLING_FIELDS = tuple(f.name for f in fields(Sampling) if f.name not in ("form", "tool_choice"))


def write_request(what: Conversation | Document, sampling: Sampling, model: str) -> tuple[str, Json]:
    """(path below the base URL, body) of a streaming request."""
    given = {name: value for name in SAMPLING_FIELDS if (value := getattr(sampling, name)) is not None}
    if "logit_bias" in given:
        given["logit_bias"] = {str(token): bias for token, bias in given["logit_bias"]}
    if "stop" in given:
        given["stop"] = list(given["stop"])
    given |= write_form(sampling.form)
    body = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if isinstance(what, Document):
        prompt: Json = {"prompt": list(what.tokens.ids) if what.tokens else what.text}
        return "completions", body | prompt | ({"suffix": what.suffix} if what.suffix is not None else {}) | given
    if "logprobs" in given:
        given |= {"logprobs": True, "top_logprobs": given["logprobs"]}
    messages = [replace(m, weight=None, tokens=None, meta={}).to_json() for m in what.messages]
    if what.continues:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return "chat/completions", body | {"messages": messages} | (
        {"tools": list(what.tools)} | write_choice(sampling.tool_choice) if what.tools else {}
    ) | given


def read_chat(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, ChatBody, CHAT_UNSUPPORTED)
    choice, tools = read_choice(body.tools or [], json.get("tools") or [], body.tool_choice, body.parallel_tool_calls)
    messages, surplus = _read_messages(json["messages"])
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise RequestError("max_tokens and max_completion_tokens disagree; send one.", param="max_completion_tokens")
    names = {"logprobs": "top_logprobs"}
    if body.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    sampling = _read_sampling(
        body,
        names,
        max_tokens=body.max_completion_tokens if body.max_tokens is None else body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        tool_choice=choice,
    )
    conversation = Conversation(messages, tools=tools)
    if body.continue_final_message:
        if body.add_generation_prompt:
            raise RequestError(
                "add_generation_prompt begins an answer, and continue_final_message goes on with one: send one of them.",
                param="add_generation_prompt",
            )
        conversation = going_on(conversation, sampling, f"messages.{len(messages) - 1}")
    elif body.add_generation_prompt is False:
        raise unsupported("add_generation_prompt", False, "beside continue_final_message it is")
    left = (path for path in ignored if not path.startswith("tools."))  # the template is given tools as they are
    return replace(_ask(body, (conversation,), sampling, (*left, *surplus)), names=names)


def going_on(conversation: Conversation, sampling: Sampling, path: str) -> Conversation:
    """The conversation, with its last message (at `path` in the body) as an answer that is begun. Raises RequestError where that cannot be: what an
    answer must look like is said of a whole one, and only words can be gone on with."""
    last = conversation.messages[-1]
    if last.role != "assistant" or last.tool_calls or last.reasoning_content:
        raise RequestError(f"{path}: an answer that is gone on with is the assistant's, and text alone.", param=path)
    if sampling.form is not None:
        path = sampling.form.param or "response_format"
        raise unsupported(path, sampling.form.kind, "beside an answer that is begun it is not")
    if sampling.tool_choice is not None and sampling.tool_choice.mode in ("required", "named"):
        raise unsupported(
            "tool_choice", sampling.tool_choice.mode, "beside an answer that is begun only auto and none are"
        )
    return replace(conversation, continues=True)


def read_completion(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    _, body, ignored = read_body(raw, CompletionBody, UNSUPPORTED)
    prompts = _read_prompts(body.prompt, body.suffix or None)
    if body.echo and (body.logprobs is not None or any(prompt.tokens for prompt in prompts)):
        raise unsupported("echo", True, "with logprobs, or with a prompt of token ids, it is not")
    sampling = _read_sampling(body, {}, max_tokens=body.max_tokens, logprobs=body.logprobs)
    return replace(_ask(body, prompts, sampling, ignored), echo=bool(body.echo))


def _ask(
    body: Shared, prompts: tuple[Conversation | Document, ...], sampling: Sampling, ignored: tuple[str, ...]
) -> Ask:
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    ask = Ask(prompts, sampling, body.model, bool(body.stream), include_usage, ignored=ignored)
    if ask.choices > MAX_CHOICES:  # each holds a copy of its prompt from the moment it is queued
        raise RequestError(f"{len(prompts)} prompts, {sampling.n} answers each: at most {MAX_CHOICES}.", param="n")
    return ask


def _read_messages(rows: list[Json]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The messages, and the dotted paths of what the model is not told."""
    if not rows:
        raise RequestError("messages is empty; send at least one.", param="messages")
    messages = tuple(_read_message(row, f"messages.{i}") for i, row in enumerate(rows))
    _check_calls(messages)
    pairs = zip(rows, messages, strict=True)
    return messages, tuple(path for i, pair in enumerate(pairs) for path in _lost(*pair, f"messages.{i}"))


def _lost(row: Json, message: Message, path: str) -> Iterator[str]:
    """What a message's JSON has and a Message does not keep. Found by writing it again, so nothing can be forgotten here."""
    alias = {"reasoning": None, "reasoning_content": None}  # one field by two names
    yield from _missing(row, message.to_json() | alias, path)


def _missing(sent: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name, value in sent.items():
            if name not in kept and value is not None and value != []:
                yield f"{path}.{name}"
            yield from _missing(value, kept.get(name), f"{path}.{name}")
    elif isinstance(sent, list) and isinstance(kept, list):
        for i, pair in enumerate(zip(sent, kept, strict=False)):
            yield from _missing(*pair, f"{path}.{i}")


def _read_message(row: Json, path: str) -> Message:
    try:
        message = Message.from_json(row, path)
    except DataError as e:
        param, _, why = str(e).partition(": ")
        code = "missing_required_parameter" if why.startswith("missing") else "invalid_value"
        raise RequestError(f"{e}.", param=param, code=code) from None
    if row.get("content") is None and message.role != "assistant":
        raise RequestError(f"{path}.content is missing.", param=f"{path}.content", code="missing_required_parameter")
    return replace(message, weight=None, tokens=None, meta={})


def _check_calls(messages: tuple[Message, ...]) -> None:
    """A tool result names a call made before it; a call's id is used once."""
    calls = Calls()
    for i, message in enumerate(messages):
        for k, call in enumerate(message.tool_calls):
            calls.made(call.id, call.name, f"messages.{i}.tool_calls.{k}.id")
        if message.role == "tool":
            calls.answered(message.tool_call_id, f"messages.{i}.tool_call_id")


def _read_prompts(prompt: object, suffix: str | None) -> tuple[Document, ...]:
    """A string, token ids, or a list of either."""
    several = isinstance(prompt, list) and prompt and not _is_id(prompt[0])
    items: list[tuple[str, Any]] = [("prompt", prompt)]
    if several and isinstance(prompt, list):
        items = [(f"prompt.{i}", one) for i, one in enumerate(prompt)]
    if len(items) > MAX_PROMPTS:
        raise RequestError(f"prompt has {len(items)} entries; at most {MAX_PROMPTS}.", param="prompt")
    documents = tuple(_read_prompt(value, path) for path, value in items)
    if suffix is not None and any(document.tokens for document in documents):
        raise unsupported("suffix", suffix, "beside a prompt of token ids it is not; send text")
    return tuple(replace(document, suffix=suffix) for document in documents)


def _read_prompt(value: object, path: str) -> Document:
    if isinstance(value, str):
        return Document(value)
    if isinstance(value, list) and value and all(_is_id(token) for token in value):
        return Document("", tokens=Tokens(tuple(value)))
    raise RequestError(
        f"{path}: expected a string or a list of token ids; found {shown(value)}.", param=path, code="invalid_type"
    )


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_sampling(body: Shared, names: dict[str, str], **given: Any) -> Sampling:
    """`given` is what the endpoints call by names of their own; `names` say what a field was called in the request."""
    form = read_form({name: getattr(body, name) for name in FORM_FIELDS})
    more: Json = {"n": body.n, "logit_bias": _read_bias(body.logit_bias), "stop": read_stop(body.stop), "form": form}
    return check_sampling(Sampling(**body.sampling(), **given, **more), names)


def _read_bias(bias: dict[str, float] | None) -> tuple[tuple[int, float], ...] | None:
    for token in bias or ():
        if not (token.isascii() and token.isdigit()):
            path = f"logit_bias.{token}"
            raise RequestError(f'{path}: the key must be a token id, such as "42".', param=path)
    return None if bias is None else tuple((int(token), value) for token, value in bias.items())
