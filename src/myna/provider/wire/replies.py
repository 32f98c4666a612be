"""What the server says, as types: the OpenAPI document is made of them, and tests hold every reply against them.

Writers make plain dictionaries, because a stream makes thousands a second. These types are strict where a client relies on it:
a field that is not declared here is a mistake, as is one that is missing.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(Reply):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """OpenAI's error body; `param` is a dotted path into the request."""

    error: Error


class AnthropicErrorReply(Reply):
    type: Literal["error"]
    error: Error


class OllamaErrorReply(Reply):
    error: str
    param: str | None
    code: str | None


class ModelReply(BaseModel):
    """A model, what it can do, and what it does when a request says nothing."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: str | None  # of an adapter: the model that it adapts
    root: str
    context_length: int | None
    ready: bool
    defaults: dict[str, Any]
    details: dict[str, Any]


class StateReply(BaseModel):
    """`status` is ok, ready, loading or draining."""

    status: str


class ModelsReply(Reply):
    object: Literal["list"]
    data: list[ModelReply]


class CountReply(Reply):
    input_tokens: Count


class OllamaDetails(Reply):
    family: str
    families: list[str]


class OllamaModel(Reply):
    name: str
    model: str
    details: OllamaDetails
    modified_at: str
    size: Count
    digest: str
    context_length: int | None = None
    expires_at: str | None = None


class OllamaModels(Reply):
    models: list[OllamaModel]


class OllamaShown(Reply):
    modelfile: str
    parameters: str
    template: str
    modified_at: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]


class OllamaVersion(Reply):
    version: str


class TokenizeReply(Reply):
    """To `prompt` and `messages`, as vLLM answers."""

    count: Count
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class TokenPiece(Reply):
    id: int
    piece: str | list[int]


class NativeTokenizeReply(Reply):
    """To `content`, as llama.cpp answers."""

    tokens: list[int | TokenPiece]


class DetokenizeReply(Reply):
    prompt: str
    content: str


class TemplateSegment(Reply):
    """Who wrote which part, and which tokens it is: `kind` is markup, a role, or text (data such as tools)."""

    kind: str
    text: str
    start: Count
    end: Count


class TemplateReply(Reply):
    prompt: str
    tokens: list[int]
    segments: list[TemplateSegment]


class ModerationResult(Reply):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class ModerationReply(Reply):
    id: str
    model: str
    results: list[ModerationResult]


class TextsUsage(Reply):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingRow(Reply):
    """`embedding`: numbers, or their 32-bit little-endian bytes in base64."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingsReply(Reply):
    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: TextsUsage


class RankedText(Reply):
    text: str


class RankedDocument(Reply):
    index: Count
    relevance_score: float
    document: RankedText | None = None


class RerankReply(Reply):
    """The best documents first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: TextsUsage


class ScoreRow(Reply):
    index: Count
    object: Literal["score"]
    score: float


class ScoreReply(Reply):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoreRow]
    usage: TextsUsage


class OllamaEmbedReply(Reply):
    model: str
    embeddings: list[list[float]]
    total_duration: Count
    load_duration: Count
    prompt_eval_count: Count


class OllamaEmbeddingsReply(Reply):
    embedding: list[float]
