"""What a reader sees while tokens are sampled: the same text for every way to cut it, and never a broken character."""

import re
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from myna.chat import TextStream
from myna.chat.dialects import dialect
from myna.chat.stream import Calls, TextDelta, plain

# Few symbols, so that markers, stop strings and their beginnings meet often.
ATOMS = ["<", "<th", "<think>", "</think>", "</", "ink>", "a", "b", "ab", "aab", "\n", "你", "🙂", "\ufffd"]
text = st.lists(st.sampled_from(ATOMS), max_size=12).map("".join)
stops = st.lists(st.sampled_from(["a", "ab", "aab", "ba", "b\n", "你", "<", "</think>", "k>a"]), max_size=3).map(tuple)
cuts = st.lists(st.integers(0, 60), max_size=20)


def play(data: bytes, at: list[int], stop: tuple[str, ...], inside: bool) -> list[TextDelta]:
    """The deltas of data cut at these places, each piece a token."""
    borders = sorted({0, len(data), *(i for i in at if i < len(data))})
    pieces = [data[i:j] for i, j in pairwise(borders)]
    stream = TextStream(pieces.__getitem__, stop, reader=plain(inside))
    return [*(stream.push(i) for i in range(len(pieces))), stream.finish()]


def joined(deltas: list[TextDelta]) -> tuple[str, str, bool]:
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), deltas[-1].stopped


@given(text, cuts, stops, st.booleans())
def test_the_outcome_does_not_depend_on_the_cuts(text: str, at: list[int], stop: tuple[str, ...], inside: bool) -> None:
    assert joined(play(text.encode(), at, stop, inside)) == joined(play(text.encode(), [], stop, inside))


@given(text, cuts, stops)
@example("aaab", [1, 2, 3], ("aab",))
@example("<<think>a", [1, 2, 3], ())
def test_a_stop_string_only_cuts_text_off(text: str, at: list[int], stop: tuple[str, ...]) -> None:
    whole, _, _ = joined(play(text.encode(), [], (), False))
    shown, _, stopped = joined(play(text.encode(), at, stop, False))
    assert whole.startswith(shown)
    assert stopped or whole == shown
    assert not any(s in shown for s in stop)


@given(text, cuts, stops, st.booleans())
def test_a_stop_string_is_never_visible(text: str, at: list[int], stop: tuple[str, ...], inside: bool) -> None:
    shown, reasoning, _ = joined(play(text.encode(), at, stop, inside))
    assert not any(s in shown or s in reasoning for s in stop)


@given(text, cuts)
def test_markers_never_leak(text: str, at: list[int]) -> None:
    shown, reasoning, _ = joined(play(text.encode(), at, (), False))
    blocks = re.split(r"(<think>.*?(?:</think>|\Z))", text, flags=re.S)
    want = "".join(b.lstrip("\n") if i else b for i, b in enumerate(blocks[::2]))
    assert shown == want
    assert "</think>" not in reasoning


@given(text, cuts, stops, st.booleans())
def test_no_character_is_ever_broken(text: str, at: list[int], stop: tuple[str, ...], inside: bool) -> None:
    shown, reasoning, _ = joined(play(text.replace("\ufffd", "").encode(), at, stop, inside))
    assert "\ufffd" not in shown + reasoning


@given(st.binary(max_size=12), cuts)
def test_bad_bytes_read_as_in_the_whole(data: bytes, at: list[int]) -> None:
    assert joined(play(data, at, (), False))[0] == data.decode("utf-8", errors="replace")


@given(text, cuts, stops)
def test_only_a_possible_beginning_is_held_back(text: str, at: list[int], stop: tuple[str, ...]) -> None:
    data = text.replace("<think>", "").encode()
    deltas = play(data, at, stop, False)[:-1]
    seen = data.decode()
    shown = "".join(d.text for d in deltas)
    if not deltas or deltas[-1].stopped:
        return
    held = seen[len(shown) :]
    words = (*stop, "<think>")
    assert not held or any(len(held) < len(w) and held.startswith(w[: len(held)]) for w in words) or "<" in held


@pytest.mark.parametrize(
    ("answer", "reasoning", "text"),
    [
        ("<think>\nhm\n\nso\n</think>\n\n4", "hm\n\nso", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("<think>cut of", "cut of", ""),
        ("a <b> </think> c", "", "a <b> </think> c"),
        ("先想<think>想</think>答", "想", "先想答"),
    ],
)
def test_reasoning_is_told_from_text(answer: str, reasoning: str, text: str) -> None:
    assert joined(play(answer.encode(), list(range(99)), (), False))[:2] == (text, reasoning)


def test_an_open_block_begins_as_reasoning() -> None:
    assert joined(play(b"hm\n</think>\n\n4", [1, 2], (), True)) == ("4", "hm", False)


def test_the_stop_string_completed_first_wins() -> None:
    assert joined(play(b"abcd", [], ("abcd", "c"), False)) == ("ab", "", True)


def test_what_may_be_a_stop_string_is_shown_at_the_end() -> None:
    assert joined(play(b"xa", [1], ("ab",), False)) == ("xa", "", False)
    assert joined(play(b"xa", [1], ("ab",), True)) == ("", "xa", False)


def test_where_one_call_is_wanted_the_answer_is_over_after_it() -> None:
    text = [
        '```json\n{"name": "add", "arguments": {}}',
        "\n```",
        '\n```json\n{"name": "add", "arguments": {}}\n```',
        "so",
    ]
    reader = dialect("generic").reader({"add": {}})
    stream = TextStream(lambda id: text[id].encode(), reader=reader, parallel=False)
    deltas = [stream.push(id) for id in range(len(text))]
    assert [[piece.index for piece in delta.calls] for delta in deltas] == [[0, 0], [], [], []]
    assert [delta.text for delta in deltas] == [""] * 4
    assert deltas[0].stopped
    assert stream.called


def test_calls_have_ids_of_their_own_whatever_the_model_says() -> None:
    call = '{"id": "%s", "name": "add", "arguments": {}}'
    text = "\n".join(call % id for id in ("mine", "theirs", "mine"))
    stream = TextStream(
        lambda _: text.encode(), reader=dialect("hermes").reader({"add": {}}), calls=Calls(taken=["theirs"])
    )
    ids = [piece.id for piece in (*stream.push(0).calls, *stream.finish().calls) if piece.name]
    assert ids[0] == "mine"
    assert len({*ids, "theirs"}) == 4


def test_what_one_token_adds_to_a_call_is_one_piece() -> None:
    text = ['```json\n{"name": "add", "arguments": {"a": ', '[1, "x', '"]', "}}\n```"]
    stream = TextStream(lambda id: text[id].encode(), reader=dialect("generic").reader({"add": {}}))
    pieces = [[(p.name, p.arguments) for p in stream.push(id).calls] for id in range(len(text))]
    assert pieces == [[("add", ""), ("", '{"a": ')], [("", '[1, "x')], [("", '"]')], [("", "}")]]
    both = TextStream(lambda id: "".join(text).encode(), reader=dialect("pythonic").reader({"add": {}}))
    assert [p.arguments for p in both.push(0).calls] == ["", '{"a": [1, "x"]}']
    apart = TextStream(lambda id: b"[add(a=1, b=2)]", reader=dialect("pythonic").reader({"add": {}}))
    assert [p.arguments for p in apart.push(0).calls] == ["", '{"a": 1, "b": 2}']
