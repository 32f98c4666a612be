"""GET /openapi.json: what the server takes and says, made of the very types that bodies are read with.

An endpoint that streams is described by its whole reply. OpenAPI 3.1 has no word for what one event of a stream is: it stands in
`x-event-schema`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import myna
from myna.provider.wire import answers, events
from myna.provider.wire import replies as say
from myna.provider.wire.body import AdapterOrder, ModelOrder
from myna.provider.wire.embed import EmbeddingsBody, OllamaEmbedBody, OllamaEmbeddingsBody, RerankBody, ScoreBody
from myna.provider.wire.messages import CountBody, MessagesBody
from myna.provider.wire.moderations import ModerationBody
from myna.provider.wire.ollama import OllamaChatBody, OllamaGenerateBody, OllamaShowBody
from myna.provider.wire.request import ChatBody, CompletionBody
from myna.provider.wire.responses import ResponsesBody
from myna.provider.wire.tokens import DetokenizeBody, TemplateBody, TokenizeBody
from myna.records import Json
from myna.serve.answer import JsonResponse

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
REFS = "#/components/schemas/{model}"
Model = type[BaseModel]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one path takes and says. `replies` of none: an object that this document does not describe. `streams`: the media
    type of its stream, if it has one, and `event` what its events are. `kind` of a reply that is not JSON is its media type. `verb`, if it is not what the body
    suggests: a body's is POST, else GET."""

    path: str
    summary: str
    body: Model | None = None
    replies: tuple[Model, ...] = ()
    streams: str | None = None
    kind: str = "application/json"
    verb: Literal["", "get", "post", "delete"] = ""
    event: Model | None = None

    @property
    def method(self) -> str:
        return self.verb or ("get" if self.body is None else "post")

    @property
    def error(self) -> Model:
        if self.path == "/ready":
            return say.StateReply
        if self.path.startswith("/v1/messages"):
            return say.AnthropicErrorReply
        return say.OllamaErrorReply if self.path.startswith("/api/") else say.ErrorReply


def _twice(path: str, summary: str, body: Model, *replies: Model) -> list[Operation]:
    """An endpoint that answers under /v1 as well."""
    return [Operation(prefix + path, summary, body, replies) for prefix in ("", "/v1")]


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "/v1/chat/completions",
        "Answer a conversation (OpenAI)",
        ChatBody,
        (answers.ChatReply,),
        EVENTS,
        event=answers.ChatChunk,
    ),
    Operation(
        "/v1/completions",
        "Continue a text, or fill one in",
        CompletionBody,
        (answers.CompletionReply,),
        EVENTS,
        event=answers.CompletionChunk,
    ),
    Operation(
        "/v1/responses",
        "Answer input items (OpenAI)",
        ResponsesBody,
        (answers.ResponseReply,),
        EVENTS,
        event=events.ResponsesEvent,
    ),
    Operation(
        "/v1/messages",
        "Answer a conversation (Anthropic)",
        MessagesBody,
        (answers.MessageReply,),
        EVENTS,
        event=events.MessagesEvent,
    ),
    Operation("/v1/messages/count_tokens", "Count a prompt (Anthropic)", CountBody, (say.CountReply,)),
    Operation("/v1/moderations", "Ask the server's check, if it has one", ModerationBody, (say.ModerationReply,)),
    Operation("/v1/models", "The models, and what they can do", None, (say.ModelsReply,)),
    Operation("/v1/models/{name}", "One model", None, (say.ModelReply,)),
    *_twice("/tokenize", "Text or a conversation as ids", TokenizeBody, say.TokenizeReply, say.NativeTokenizeReply),
    *_twice("/detokenize", "Ids as text", DetokenizeBody, say.DetokenizeReply),
    *_twice("/apply-template", "The prompt that a conversation becomes", TemplateBody, say.TemplateReply),
    Operation("/v1/embeddings", "Texts as vectors", EmbeddingsBody, (say.EmbeddingsReply,)),
    *_twice("/rerank", "Documents in order of relevance", RerankBody, say.RerankReply),
    Operation("/v2/rerank", "Documents in order of relevance", RerankBody, (say.RerankReply,)),
    *_twice("/score", "How well texts answer a text", ScoreBody, say.ScoreReply),
    Operation("/api/embed", "Texts as vectors (Ollama)", OllamaEmbedBody, (say.OllamaEmbedReply,)),
    Operation("/api/embeddings", "A text as a vector (Ollama)", OllamaEmbeddingsBody, (say.OllamaEmbeddingsReply,)),
    Operation(
        "/api/chat",
        "Answer a conversation (Ollama)",
        OllamaChatBody,
        (answers.OllamaChatReply,),
        LINES,
        event=events.OllamaChatLine,
    ),
    Operation(
        "/api/generate",
        "Answer a prompt (Ollama)",
        OllamaGenerateBody,
        (answers.OllamaGenerateReply,),
        LINES,
        event=events.OllamaGenerateLine,
    ),
    Operation("/api/show", "One model (Ollama)", OllamaShowBody, (say.OllamaShown,)),
    Operation("/api/tags", "The models (Ollama)", None, (say.OllamaModels,)),
    Operation("/api/ps", "The models in memory (Ollama)", None, (say.OllamaModels,)),
    Operation("/api/version", "The server's version", None, (say.OllamaVersion,)),
    Operation("/v1/models/load", "Load a model", ModelOrder, (say.ModelReply,)),
    Operation("/v1/models/unload", "Unload a model", ModelOrder, (say.ModelReply,)),
    Operation("/v1/load_lora_adapter", "Load an adapter (vLLM)", AdapterOrder, (say.ModelReply,)),
    Operation("/v1/unload_lora_adapter", "Unload an adapter (vLLM)", AdapterOrder, (say.ModelReply,)),
    Operation("/health", "Whether the process lives", None, (say.StateReply,)),
    Operation("/ready", "Whether it can answer: 503 if not", None, (say.StateReply,)),
    Operation("/metrics", "Counts and times, for Prometheus", kind="text/plain"),
    Operation("/openapi.json", "This document"),
)


def document(operations: Sequence[Operation] = OPERATIONS) -> Json:
    """An OpenAPI 3.1 document."""
    models = {model for op in operations for model in (op.body, op.error, op.event, *op.replies) if model is not None}
    ordered = sorted(models, key=lambda model: (model.__module__, model.__name__))
    names, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=REFS)
    refs = {model: names[model, "validation"] for model in ordered}
    paths: dict[str, Json] = {}
    for op in operations:
        paths.setdefault(op.path, {})[op.method] = _describe(op, refs)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Myna", "version": myna.__version__, "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


ABOUT = (
    "OpenAI's, Anthropic's and Ollama's APIs over one model server. Fields that are not described here are accepted, have no "
    "effect, and are named in the reply's X-Ignored-Params header; fields that would change the answer and cannot be "
    "honoured are refused with code unsupported_parameter."
)


def _describe(op: Operation, refs: dict[Model, Any]) -> Json:
    some = [refs[model] for model in op.replies]
    schema: Json = some[0] if len(some) == 1 else {"anyOf": some} if some else {"type": "object"}
    content: Json = {op.kind: {"schema": schema if op.kind == "application/json" else {"type": "string"}}}
    if op.streams:
        # What `schema` says here would be about the whole stream, which is no JSON.
        content[op.streams] = {"x-event-schema": refs[op.event]} if op.event else {}
    error = {"description": "What is at fault", "content": {"application/json": {"schema": refs[op.error]}}}
    row: Json = {
        "summary": op.summary,
        "operationId": f"{op.method}_{re.sub(r'[^A-Za-z0-9]+', '_', op.path).strip('_')}",
        "responses": {"200": {"description": "The answer", "content": content}, "default": error},
    }
    if names := re.findall(r"{(\w+)}", op.path):
        row["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if op.body is not None:
        row["requestBody"] = {"required": True, "content": {"application/json": {"schema": refs[op.body]}}}
    return row


def routes() -> list[Route]:
    written = document()

    async def openapi(_: Request) -> Response:
        return JsonResponse(written)

    return [Route("/openapi.json", openapi, methods=["GET"])]
