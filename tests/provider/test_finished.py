"""A finished answer is looked at by somebody else: what is found ends up where a client can see it."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from myna.provider.finished import Finished
from myna.provider.wire.request import Ask
from myna.provider.wire.response import ChatWriter, ChunkReader, CompletionWriter
from myna.records import CallPiece, Conversation, Delta, Document, ProviderError, Sampling


@dataclass
class Fake:
    """A compiled form that nothing fits but "ok"."""

    left: tuple[str, ...] = ()
    checked: list[str] = field(default_factory=list)

    def check(self, text: str) -> str | None:
        self.checked.append(text)
        return None if text == "ok" else "#/a: wrong"


def follow(form: Fake | None, *deltas: Delta, cut: bool = False) -> list[Delta]:
    async def all_of() -> list[Delta]:
        finished = Finished(form)  # type: ignore[arg-type]
        return [await finished.look(delta, cut=cut) for delta in deltas]

    return asyncio.run(all_of())


def test_a_flaw_of_a_loose_form_is_told_with_the_finish_reason() -> None:
    form = Fake(left=("`not` at #",))
    told = follow(
        form, Delta(0, "o"), Delta(1, "no"), Delta(0, "k", finish_reason="stop"), Delta(1, finish_reason="stop")
    )
    assert [delta.flaw for delta in told] == [None, None, None, "#/a: wrong"]
    assert form.checked == ["ok", "no"]


def test_an_answer_that_breaks_what_was_enforced_is_an_error() -> None:
    assert follow(Fake(), Delta(0, "ok", finish_reason="stop"))[0].flaw is None
    with pytest.raises(ProviderError, match="bug"):
        follow(Fake(), Delta(0, "no", finish_reason="stop"))


def test_cut_answers_and_calls_are_not_looked_at() -> None:
    form = Fake()
    follow(form, Delta(0, "no", finish_reason="length"))
    follow(form, Delta(0, "no", finish_reason="stop"), cut=True)
    follow(form, Delta(0, tool_calls=(CallPiece(0, "a", "b", "{}"),)), Delta(0, finish_reason="stop"))
    follow(form, Delta(1, "no", tool_calls=(CallPiece(0, "a", "b", "{}"),)), Delta(1, finish_reason="stop"))
    follow(None, Delta(0, "no", finish_reason="stop"))
    assert form.checked == []


@pytest.mark.parametrize(("what", "writer"), [(Conversation.ask("hi"), ChatWriter), (Document("hi"), CompletionWriter)])
def test_a_flaw_is_written_beside_the_finish_reason_and_read_back(what: Conversation | Document, writer: type) -> None:
    deltas = [Delta(0, "no"), Delta(0, finish_reason="stop", flaw="#/a: wrong")]
    ask = Ask((what,), Sampling())
    chunks = [chunk for delta in deltas for chunk in writer(ask, "m").chunks(delta)]
    assert [chunk["choices"][0].get("flaw") for chunk in chunks] == [None, "#/a: wrong"]
    read = [delta for chunk in chunks for delta in ChunkReader().read(json.loads(json.dumps(chunk)))]
    assert read == deltas
    assert writer(ask, "m").whole(deltas)["choices"][0]["flaw"] == "#/a: wrong"
    assert "flaw" not in writer(ask, "m").whole([Delta(0, "ok", finish_reason="stop")])["choices"][0]
