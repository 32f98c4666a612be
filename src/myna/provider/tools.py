"""Which tools an answer may call, and the form that binds its calls where they are not left to the model."""

import json
import time
from dataclasses import replace

from myna.chat import Chat, schemas
from myna.chat.arguments import kinds
from myna.chat.grammar import Arguments, calls_form
from myna.chat.scan import Bound
from myna.forms import Compiler
from myna.forms.worker import SECONDS
from myna.records import Conversation, Document, Form, RequestError, Sampling, ToolChoice


def offered(what: Conversation | Document, sampling: Sampling) -> Conversation | Document:
    """The conversation with the tools that its answer may call. RequestError where there is no such tool, or where the
    arguments of one are to be no object."""
    if isinstance(what, Document):
        return what
    for i, schema in enumerate(schemas(what.tools).values()):
        if (kind := schema.get("type", "object")) != "object":
            path = f"tools.{i}.function.parameters"
            said = f"{path}: its type is {json.dumps(kind)[:80]}; the arguments of a function are an object."
            raise RequestError(said, param=path, code="invalid_function_parameters")
    choice = (sampling.tool_choice or ToolChoice()).check(frozenset(schemas(what.tools)))
    return replace(what, tools=()) if choice.mode == "none" else what


def must_call(sampling: Sampling) -> bool:
    return sampling.tool_choice is not None and sampling.tool_choice.mode in ("required", "named")


def bound_text(talk: Conversation, sampling: Sampling) -> Bound:
    """What can only be a call that was cut, in an answer that `bound_calls` binds."""
    if must_call(sampling):
        return "all"
    strict = any(_is_strict(talk, i) for i in range(len(talk.tools)))
    return "calls" if strict and not sampling.form else ""


def bound_calls(chat: Chat, forms: Compiler, talk: Conversation, sampling: Sampling) -> Form | None:
    """The form of calls: where they are required, where a tool is strict, and where the text has a form. None leaves them
    to the model. RequestError names the tool whose schema cannot be enforced."""
    strict = {name for i, name in enumerate(schemas(talk.tools)) if _is_strict(talk, i)}
    if not talk.tools or not (must_call(sampling) or strict or sampling.form):
        return None
    arguments, end = {}, time.monotonic() + SECONDS
    for i, (name, schema) in enumerate(schemas(talk.tools).items()):
        try:
            source, style = json.dumps({"type": "object"} | schema), chat.dialect.style
            whole = forms.lower(source, strict=name in strict, seconds=end - time.monotonic())
            own = forms.lower_arguments(source, style, kinds(schema), end - time.monotonic()) if style else None
            arguments[name] = Arguments(whole, own)
        except RequestError as e:
            path = f"tools.{i}.function.parameters"
            raise RequestError(f"{path}: {e}", param=path, code="invalid_function_parameters") from None
    choice = sampling.tool_choice or ToolChoice()
    if sampling.form and choice.mode == "auto":  # the text's own form is an alternative beside this one
        choice = replace(choice, mode="required")
    return calls_form(chat.dialect, arguments, choice, chat.tokenizer.special, chat.stop_ids)


def _is_strict(talk: Conversation, i: int) -> bool:
    tool = talk.tools[i]
    return bool(tool.get("function", tool).get("strict"))
