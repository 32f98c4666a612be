"""Between text and tokens: the tokenizer, the one renderer, and its inverse, the text stream. No torch."""

from myna.chat.passages import Passages
from myna.chat.render import Chat
from myna.chat.stream import TextDelta, TextStream
from myna.chat.template import ChatTemplate
from myna.chat.tokenized import Rendered, Segment
from myna.chat.tokenizer import Tokenizer
from myna.chat.tools import schemas

__all__ = [
    "Chat",
    "ChatTemplate",
    "Passages",
    "Rendered",
    "Segment",
    "TextDelta",
    "TextStream",
    "Tokenizer",
    "schemas",
]
