"""What flows: conversations, documents, sampling and replies; JSON lines; the error tree. No torch."""

from myna.records.conversation import Candidate, Conversation, Image, Json, Message, Role, Text, Tokens, ToolCall
from myna.records.document import Document
from myna.records.embedding import Embedding, Passage, Scores, Vectors
from myna.records.errors import (
    ChatError,
    DataError,
    DocumentError,
    DownloadError,
    ModelDirError,
    MynaError,
    ProviderError,
    RequestError,
    SqlError,
    ToolError,
    Unavailable,
    Unjudged,
)
from myna.records.form import Form, Style, ToolChoice
from myna.records.reply import CallPiece, Delta, Reply, Sampled, Usage, fold
from myna.records.sampling import DEFAULTS, Sampling

__all__ = [
    "DEFAULTS",
    "CallPiece",
    "Candidate",
    "ChatError",
    "Conversation",
    "DataError",
    "Delta",
    "Document",
    "DocumentError",
    "DownloadError",
    "Embedding",
    "Form",
    "Image",
    "Json",
    "Message",
    "ModelDirError",
    "MynaError",
    "Passage",
    "ProviderError",
    "Reply",
    "RequestError",
    "Role",
    "Sampled",
    "Sampling",
    "Scores",
    "SqlError",
    "Style",
    "Text",
    "Tokens",
    "ToolCall",
    "ToolChoice",
    "ToolError",
    "Unavailable",
    "Unjudged",
    "Usage",
    "Vectors",
    "fold",
]
