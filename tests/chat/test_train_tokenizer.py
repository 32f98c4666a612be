"""A tokenizer of our own: of the size asked for, the same every time, lossless, and the same to transformers."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import orjson
import pytest
from chat_tiny import CORPUS
from hypothesis import given, settings
from transformers import AutoTokenizer

import myna.chat
from myna.chat import Chat, Tokenizer, schemas
from myna.chat.byte_chat import _vocabulary
from myna.chat.density import kind_of, measure, stretches
from myna.chat.train_tokenizer import (
    CONTROLS,
    LEAST,
    PIECE,
    VISIBLE_CONTROLS,
    check_tokenizer,
    pieces,
    train,
    words_of,
    write_tokenizer,
)
from myna.records import ChatError, Conversation, DataError, Document, Message, ToolCall
from myna.train.shape import shape

HERE = Path(myna.chat.__file__).parent
CODE = [(HERE / name).read_text() for name in ("values.py", "stream.py", "grammar.py", "tokenized.py")]
TEXTS = [*CORPUS, *CODE]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "两数之和",
        "parameters": {"type": "object", "properties": {"a": {}, "b": {}}},
    },
}
CALLS = (ToolCall("c1", "add", '{"a": 1, "b": "二"}'), ToolCall("c2", "add", '{"a": [2.5, null], "b": {}}'))
ASKED = Conversation.of(("system", "Be brief."), ("user", "What is 1+二?\n<|end|> is no marker here"), tools=(ADD,))
TALK = (
    ASKED
    + Message("assistant", " Let me see.\n", reasoning_content="adding\n\nis easy", tool_calls=CALLS)
    + Message("tool", "3", tool_call_id="c1")
    + Message("tool", "<|user|>", tool_call_id="c2")
    + Message("assistant", "\nIt is 3. ")
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own")
    write_tokenizer(path, train(pieces(TEXTS), 700))
    return path


@pytest.fixture(scope="module")
def chat(path: Path) -> Chat:
    return Chat.load(path)


@pytest.mark.parametrize("vocab", [LEAST, LEAST + 1, 300, 777])
def test_the_vocabulary_has_exactly_the_size_asked_for(vocab: int, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, train(TEXTS, vocab))
    check_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.vocab_size == len(theirs) == len(theirs.get_vocab()) == vocab
    assert all(tokenizer.piece(id) for id in range(vocab))


def test_text_that_is_too_short_for_the_vocabulary_says_what_it_gives() -> None:
    with pytest.raises(ChatError, match=r"gives (\d+) tokens of the 5000") as caught:
        train(CORPUS, 5000)
    most = int(str(caught.value).split()[3])
    assert LEAST < most < 5000
    train(CORPUS, most)
    with pytest.raises(ChatError, match="gives"):
        train(CORPUS, most + 1)


@pytest.mark.parametrize("vocab", [-1, 0, LEAST - 1, 1 << 21])
def test_a_size_that_cannot_be_is_refused(vocab: int) -> None:
    with pytest.raises(ChatError, match="at least the 256 bytes"):
        train(TEXTS, vocab)


def test_the_same_text_gives_the_same_bytes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    write_tokenizer(tmp_path, train(iter([*pieces(TEXTS)]), 700))
    files = sorted(file.name for file in path.iterdir())
    assert len(files) == 4
    assert all((path / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_every_merge_joins_a_most_frequent_pair() -> None:
    """Byte-pair encoding as Sennrich et al. 2016 have it, replayed step by step on words without signs."""
    words = Counter("low lower lowest newer newest wider widest slow slower 慢慢 慢走".split())
    spec = train([f"{word}\n" * count for word, count in words.items() for _ in range(3)], LEAST + 14)
    letters = {word: [c for byte in word.encode() for c in _alphabet()[byte]] for word in words}
    for left, right in spec["model"]["merges"]:
        pairs = Counter(pair for parts in letters.values() for pair in pairwise(parts))
        assert pairs[left, right] == max(pairs.values()), (left, right)
        letters = {word: _joined(parts, left, right) for word, parts in letters.items()}


def _alphabet() -> dict[int, str]:
    return {byte: letter for letter, byte in _vocabulary().items()}


def _joined(parts: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == (left, right):
            out[-1] += part
        else:
            out.append(part)
    return out


def test_every_byte_has_a_token(chat: Chat) -> None:
    assert {chat.tokenizer.piece(id) for id in range(256)} == {bytes([byte]) for byte in range(256)}


@settings(max_examples=60)
@given(st.text())
def test_any_text_comes_back(chat: Chat, text: str) -> None:
    ids = chat.tokenizer.encode(text)
    assert chat.tokenizer.decode(ids) == text
    assert max(ids, default=0) < 700 - len(CONTROLS) - len(VISIBLE_CONTROLS), "a control token was typed"


def test_every_script_comes_back(chat: Chat) -> None:
    every = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c % 31 == 0)
    assert chat.tokenizer.decode(chat.tokenizer.encode(every)) == every
    assert chat.tokenizer.decode(chat.tokenizer.encode("e\u0301 ﬁ  \r\n\t ")) == "e\u0301 ﬁ  \r\n\t ", "normalised"


@pytest.mark.parametrize("text", [*TEXTS[:5], CODE[0], "  two\n\n\n  1234 didn't 你好world!!\n", "", " ", "\u200d🙂"])
@pytest.mark.parametrize("family", ["", "qwen3"])
def test_transformers_has_the_same_ids(path: Path, chat: Chat, text: str, family: str, tmp_path: Path) -> None:
    """Also where a config.json beside it says that the model is a Qwen: transformers then has ideas of its own."""
    if family:
        for file in path.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "config.json").write_bytes(orjson.dumps(shape(1, vocab=700, context=64)))
    theirs = AutoTokenizer.from_pretrained(tmp_path if family else path)
    ids = [*chat.tokenizer.opening, *chat.tokenizer.encode(text)]
    assert theirs(text).input_ids == ids
    assert theirs.decode(ids, skip_special_tokens=True) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (chat.tokenizer.bos_id, *chat.tokenizer.eos_ids)


def test_control_tokens_are_never_made_of_merges(tmp_path: Path) -> None:
    """Text full of them teaches none of them: they cannot be typed."""
    names = (*CONTROLS, *VISIBLE_CONTROLS)
    write_tokenizer(
        tmp_path, train(["".join(names) * 3 + "\n" + "x".join(names) + "\n" for _ in range(50)], LEAST + 30)
    )
    tokenizer = Tokenizer.load(tmp_path)
    first = tokenizer.vocab_size - len(names)
    assert [tokenizer.piece(first + i).decode() for i in range(len(names))] == list(names)
    for name in names:
        assert not any(name.encode() in tokenizer.piece(id) for id in range(first))
        assert len(tokenizer.encode(name)) > 1
        assert tokenizer.encode_markup(name) == [first + names.index(name)]


def test_a_text_opens_with_bos_and_thoughts_stay_visible(path: Path, chat: Chat) -> None:
    special = chat.tokenizer.special
    assert chat.tokenizer.opening == (special["<|bos|>"],)
    theirs = AutoTokenizer.from_pretrained(path)
    ids = [special[name] for name in ("<|user|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|end|>")]
    assert theirs.decode(ids, skip_special_tokens=True) == "<think></think><tool_call></tool_call>"


def test_a_conversation_is_written_as_the_format_says(chat: Chat) -> None:
    text = "".join(segment.text for segment in chat.render(TALK, open_turn=True).segments)
    system, rest = text.split("<|end|><|user|>", 1)
    assert system.startswith(
        '<|bos|><|system|>Be brief.\n\nFunctions you may call:\n{"type": "function", "function": {'
    )
    assert system.endswith('To call one, write\n<tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call>')
    assert "两数之和" in system
    assert rest == (
        "What is 1+二?\n<|end|> is no marker here<|end|>"
        "<|assistant|><think>adding\n\nis easy</think> Let me see.\n"
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "二"}}\n</tool_call>'
        '\n<tool_call>\n{"name": "add", "arguments": {"a": [2.5, null], "b": {}}}\n</tool_call><|end|>'
        "<|tool|>3<|end|><|tool|><|user|><|end|><|assistant|>\nIt is 3. <|end|><|assistant|>"
    )


def test_our_template_is_read_as_hermes_and_ends_turns_with_one_token(chat: Chat) -> None:
    assert chat.dialect.name == "hermes"
    assert chat.stop_ids == {chat.tokenizer.special["<|end|>"]}
    assert chat.infill is None


@pytest.mark.parametrize(
    "talk", [TALK, ASKED, Conversation.ask("你好"), Conversation.of(("user", "a"), ("assistant", "b"))]
)
@pytest.mark.parametrize("open_turn", [True, False])
def test_transformers_writes_the_same_conversation(path: Path, chat: Chat, talk: Conversation, open_turn: bool) -> None:
    theirs = AutoTokenizer.from_pretrained(path)
    rows = [row | {"content": row.get("content") or ""} for row in talk.to_json()["messages"]]
    for row in rows:
        for call in row.get("tool_calls", ()):
            call["function"]["arguments"] = orjson.loads(call["function"]["arguments"])
    text = theirs.apply_chat_template(
        rows, tools=list(talk.tools) or None, add_generation_prompt=open_turn, tokenize=False
    )
    rendered = chat.render(talk, open_turn=open_turn)
    assert "".join(segment.text for segment in rendered.segments) == text
    if "<|" not in "".join(message.text for message in talk.messages):  # theirs lets control tokens be typed
        assert rendered.ids == tuple(
            theirs.apply_chat_template(rows, tools=list(talk.tools) or None, add_generation_prompt=open_turn).input_ids
        )


def test_training_ids_are_the_prompts_and_what_was_sampled_after_them(chat: Chat) -> None:
    whole = chat.render(TALK, open_turn=False)
    for i in (2, 5):
        prompt = chat.render(Conversation(TALK.messages[:i], tools=TALK.tools))
        assert whole.ids[: len(prompt.ids)] == prompt.ids
        stream = chat.text_stream(tools=schemas(TALK.tools), open_reasoning=prompt.open_reasoning)
        at, deltas = len(prompt.ids), []
        while whole.ids[at] not in chat.stop_ids:
            assert whole.weights[at] == 1
            deltas.append(stream.push(whole.ids[at]))
            at += 1
        assert whole.weights[at] == 1, "the end of a turn is learned"
        deltas.append(stream.finish())
        said = TALK.messages[i]
        assert "".join(delta.reasoning for delta in deltas) == (said.reasoning_content or "")
        assert "".join(delta.text for delta in deltas).strip() == said.text.strip()


def test_words_of_a_record_hold_no_markup() -> None:
    assert [*words_of(Document("a <|end|>"))] == ["a <|end|>"]
    words = [*words_of(TALK)]
    assert {
        "Be brief.",
        " Let me see.\n",
        "adding\n\nis easy",
        '\n{"name": "add", "arguments": {"a": 1, "b": "二"}}\n',
    } <= {*words}
    assert not any("<|assistant|>" in word or "<tool_call>" in word for word in words)


@given(st.lists(st.text(alphabet="ab \n", max_size=30), max_size=4), st.integers(0, 3))
def test_pieces_are_the_text_and_end_with_lines(texts: list[str], long: int) -> None:
    texts = [*texts, "x" * (long * PIECE + 5), ("line\n" * PIECE)[: PIECE * long]]
    found = [*pieces(texts)]
    assert "".join(found) == "".join(texts)
    assert max(map(len, found), default=0) <= PIECE


def test_half_a_character_is_an_error_that_shows_where() -> None:
    with pytest.raises(DataError, match="'good text ' is followed by half a character"):
        [*pieces(["good text \ud800 and more"])]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("The quick brown fox, obviously.", "latin"),
        ("这是一个关于Python的句子。", "cjk"),
        ("ひらがなとカタカナ", "cjk"),
        ("for i in range(len(x)): y[i] += x[i] * 2", "code"),
        ("return {'a': [1, 2]}", "code"),
        ("Война и мир", "other"),
        ("ROMEO: What, ho!", "latin"),
    ],
)
def test_the_kind_of_a_line(line: str, kind: str) -> None:
    assert kind_of(line + "\n") == kind


def test_density_counts_every_byte_once_and_sees_loss(chat: Chat) -> None:
    text = "\n\nwords here\n你好世界\n\nx = f(y[0]) * {1: 2}\n"
    assert "".join(lines for _, lines in stretches(text)) == text
    found = measure(chat.tokenizer, [text])
    assert sum(found.nbytes.values()) == len(text.encode())
    assert found.nbytes["cjk"] == len("你好世界\n\n".encode())
    assert found.of("cjk") == found.nbytes["cjk"] / len(chat.tokenizer.encode("你好世界\n\n"))
    assert found.of("other") is None
    assert found.lossy == 0
