"""Text to ids and back, for every kind of tokenizer."""

import json
import threading
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from chat_tiny import CONTROL, CORPUS, KINDS, write_model
from hypothesis import given, settings
from tokenizers import Tokenizer as Library

from myna.chat import Chat, Tokenizer
from myna.chat.tokenizer import _as_texts
from myna.records import ChatError

TEXTS = [*CORPUS[:4], " two  spaces ", "\n\nlines\n", "snow ☃ 🙂 e\u0301", "don't ?! , .", "a", " ", "  "]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def path(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(kind), kind)


@pytest.fixture(scope="session")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


@pytest.fixture(scope="session")
def library(path: Path) -> Library:
    return Library.from_file(str(path / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_has_the_librarys_ids(tokenizer: Tokenizer, library: Library, text: str) -> None:
    assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


def test_many_texts_are_encoded_as_each_alone(tokenizer: Tokenizer) -> None:
    texts = [*TEXTS, *(f"a{control} b" for control in CONTROL), ""]
    assert tokenizer.encode_many(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("text", ["<s>Hello world</s> next", "[INST] Hello [/INST] yes </s>", "Hello<|im_end|>\nyou"])
def test_markup_has_the_librarys_ids(tokenizer: Tokenizer, library: Library, text: str) -> None:
    assert tokenizer.encode_markup(text) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_is_the_librarys(tokenizer: Tokenizer, library: Library, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_undoes_encoding(tokenizer: Tokenizer, kind: str, text: str) -> None:
    if kind == "word_piece":
        pytest.skip("WordPiece forgets white space")
    assert readable(tokenizer.decode(tokenizer.encode(text))) == readable(text)


def readable(text: str) -> str:
    """SentencePiece cannot tell "▁" from a blank, nor a text's first blank from its own."""
    return text.replace("▁", " ").lstrip(" ")


@pytest.mark.parametrize("typed", CONTROL)
@pytest.mark.parametrize("frame", ["{}", "Hello {} world", "a{}{}b", " {}\n"])
def test_a_typed_control_token_is_text(tokenizer: Tokenizer, kind: str, typed: str, frame: str) -> None:
    text = frame.replace("{}", typed)
    ids = tokenizer.encode(text)
    unknown = tokenizer.special.get("[UNK]")
    assert {id for id in ids if id != unknown}.isdisjoint(tokenizer.special.values())
    assert kind == "word_piece" or readable(tokenizer.decode(ids)) == readable(text)


@given(st.lists(st.sampled_from([*CONTROL, *(c[:-1] for c in CONTROL), "|>", "<", " ", "你", "x", ">"]), max_size=6))
@settings(max_examples=60)
def test_no_mixture_of_control_tokens_comes_through(tokenizer: Tokenizer, kind: str, parts: list[str]) -> None:
    ids = tokenizer.encode("".join(parts))
    assert {id for id in ids if id != tokenizer.special.get("[UNK]")}.isdisjoint(tokenizer.special.values())


def test_pieces_of_running_text_join_to_it(tokenizer: Tokenizer, kind: str) -> None:
    text = "今天 Hello world" if kind == "word_piece" else "今天 Hello 🙂 world"
    ids = tokenizer.encode(text)
    joined = b"".join(tokenizer.piece(id) for id in ids).decode()
    assert joined.removeprefix(" ") == (tokenizer.decode(ids) if kind == "word_piece" else text)


def test_an_id_without_a_name_is_worth_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([tokenizer.vocab_size, 10**9]) == ""
    assert tokenizer.piece(10**9) == b""


def test_others_go_on_while_a_long_text_is_encoded(tokenizer: Tokenizer) -> None:
    text = "hello world " * 20_000
    work = threading.Thread(target=tokenizer._encode_text, args=(text,))
    work.start()
    turns = 0
    while work.is_alive():
        turns += 1
        time.sleep(0)
    assert turns > 20, "the library kept the interpreter to itself"
    assert tokenizer._encode_text(text).ids == tokenizer._library.encode(text, add_special_tokens=False).ids


def test_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ChatError, match="Unicode"):
        tokenizer.encode("\ud800")
    with pytest.raises(ChatError, match="Unicode"):
        tokenizer.encode("\ud800" + "a" * 100_000)


def test_white_space_and_html_stay_typeable(tmp_path: Path) -> None:
    model = write_model(tmp_path, "byte_level")
    library = Library.from_file(str(model / "tokenizer.json"))
    library.add_tokens(["\n\n", "    ", "<h1>"])
    library.save(str(model / "tokenizer.json"))
    (model / "chat_template.jinja").write_text("{{ 'a    b\n\n' }}\n\n")
    ids = Tokenizer.load(model).encode("\n\n<h1>    ")
    assert ids == [library.token_to_id(t) for t in ("\n\n", "<h1>", "    ")]


BROKEN = ["", "[]", "{}", '{"model": {"type": "BPE", "vocab": {}}}', '{"model": {"vocab": 3}}', '{"added_tokens": [1]}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_tokenizer_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ChatError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_regular_expression_that_gives_up_is_an_error_not_a_panic(tmp_path: Path) -> None:
    """The library is Rust: a panic is no Exception, and nobody who waits for the answer would hear of it."""
    path = write_model(tmp_path, "byte_level") / "tokenizer.json"
    costly = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": costly}))
    with pytest.raises(ChatError, match="cannot be tokenized"):
        Tokenizer.load(path.parent).encode("a" * 40 + "b")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_link_out_of_the_directory_is_not_followed(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "byte_level")
    outside = tmp_path / "outside"
    outside.write_text((model / name).read_text() if (model / name).exists() else "secret")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(outside)
    with pytest.raises(ChatError, match="outside the directory"):
        Chat.load(model)


def test_a_missing_tokenizer_json_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="myna pull"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("merges", "given"),
    [
        ([["a", "b"], ["ab", "c"]], ["a b", "ab c"]),
        ([["a", " b"], ["ab", "c"]], [["a", " b"], ["ab", "c"]]),
        (["a b"], ["a b"]),
        ([["a", "b"], "ab c"], [["a", "b"], "ab c"]),
    ],
)
def test_merges_become_texts_unless_a_token_has_a_blank(merges: list, given: list) -> None:
    assert _as_texts(merges) == given
