"""Making a tokenizer: byte-level BPE learned from text, with the control tokens and the chat template of our own format.

Byte-pair encoding (Gage 1994; Sennrich et al. 2016) over UTF-8 bytes (Radford et al. 2019): it starts from the 256 bytes, so
every text can be written, and joins the most frequent pair until the vocabulary is full. Pairs are joined within the pieces
that Qwen2's regular expression cuts a text into: words with the blank before them, single digits, runs of signs, runs of
Chinese. That cut, and not one of our own, because llama.cpp and vLLM know it too. The learning itself is the `tokenizers`
library's.

Text is not normalised: what is decoded is what was encoded, byte for byte.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer as _Library
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from myna.chat.render import Chat
from myna.modeldir.pretokenizers import QWEN2, Rule
from myna.records import ChatError, Conversation, DataError, Document

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
# <|end|> ends a turn and a text alike. The last four are not flagged "special": a reader of raw text sees them, and the
# parsers of reasoning and calls have to.
CONTROLS = (BOS, END, PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
VISIBLE_CONTROLS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
LEAST = 256 + len(CONTROLS) + len(VISIBLE_CONTROLS)  # tokens of a vocabulary in which nothing is joined
MOST = 1 << 20
PIECE = 1 << 12  # characters; texts are handed to the library in pieces that end at a line's end, if there is one
MIN_COUNT = 2  # a pair seen once tells nothing


def train(texts: Iterable[str], vocab: int) -> dict[str, Any]:
    """The tokenizer.json of a vocabulary of exactly `vocab` tokens, control tokens included; they are the last ones.

    The same texts in the same order give the same result. Texts are read once and counted as they come: memory grows with
    how many different words there are, not with the text. Raises ChatError for a size that cannot be, or if the texts give
    less than that.
    """
    controls = len(CONTROLS) + len(VISIBLE_CONTROLS)
    if not LEAST <= vocab <= MOST:
        raise ChatError(
            f"a vocabulary of {vocab}: it holds at least the 256 bytes and {controls} control tokens, {LEAST} in all, and at "
            f"most {MOST:,}."
        )
    library = _Library(BPE())
    library.pre_tokenizer = _cut()
    library.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab - controls,
        min_frequency=MIN_COUNT,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    if (found := library.get_vocab_size()) != vocab - controls:
        raise ChatError(
            f"the text gives {found + controls} tokens of the {vocab} asked for: no pair of tokens in it is left that occurs "
            f"{MIN_COUNT} times. Give more text, or ask for --vocab {found + controls} or less."
        )
    spec: dict[str, Any] = orjson.loads(library.to_str())
    return {**spec, "added_tokens": _added(vocab - controls), "post_processor": _opens_with(vocab - controls)}


def write_tokenizer(path: Path, spec: dict[str, Any]) -> None:
    """The tokenizer's part of a model directory, and what generation needs of it. The same spec, the same bytes."""
    ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(CONTROLS[3:]),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    generation = {"bos_token_id": ids[BOS], "eos_token_id": ids[END], "pad_token_id": ids[PAD]}
    for name, value in (
        ("tokenizer.json", spec),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ):
        (path / name).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    (path / "chat_template.jinja").write_text(own_template(), encoding="utf-8")


def own_template() -> str:
    """The chat template of our own format."""
    return files("myna.chat").joinpath("own_format.jinja").read_text(encoding="utf-8")


def check_tokenizer(path: Path) -> None:
    """Raises ChatError unless the directory's tokenizer loads and writes a conversation."""
    Chat.load(path).render(Conversation.ask("?"))


def words_of(record: Document | Conversation) -> Iterator[str]:
    """What of a record stands between control tokens: a document's text; the words, reasoning, calls and tools of a
    conversation and of its candidates."""
    if isinstance(record, Document):
        yield record.text
        return
    for message in (*record.messages, *(m for candidate in record.candidates for m in candidate.messages)):
        yield from filter(None, (message.text, message.reasoning_content))
        for call in message.tool_calls:
            yield f'\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n'
    for tool in record.tools:
        yield orjson.dumps(tool).decode()


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts in pieces of about PIECE characters, cut after a line's end where there is one: a file of one line is no
    single word to count."""
    for text in texts:
        start = 0
        while start < len(text):
            stop = text.rfind("\n", start, start + PIECE) + 1 if len(text) - start > PIECE else len(text)
            stop = stop or start + PIECE
            yield _encodable(text[start:stop])
            start = stop


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise DataError(
            f"a text is not valid Unicode: {text[max(0, e.start - 20) : e.start]!r} is followed by half a character"
        ) from None
    return text


def _cut() -> Any:
    spec = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": Rule((QWEN2,)).to_json()}
    return _Library.from_str(orjson.dumps(spec).decode()).pre_tokenizer


def _added(first: int) -> list[dict[str, Any]]:
    return [
        {"id": first + i, "content": text, "special": text in CONTROLS, "normalized": False, "single_word": False}
        | {"lstrip": False, "rstrip": False}
        for i, text in enumerate((*CONTROLS, *VISIBLE_CONTROLS))
    ]


def _opens_with(bos: int) -> dict[str, Any]:
    """A text begins with <|bos|>, to whoever reads tokenizer.json."""
    begin = {"SpecialToken": {"id": BOS, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, a],
        "pair": [begin, a, b],
        "special_tokens": {BOS: {"id": BOS, "ids": [bos], "tokens": [BOS]}},
    }
