"""What an endpoint does is what it did: an answer that ignores what was asked gives it no power."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from myna.provider import Scripted, powers
from myna.provider.connect import connect
from myna.provider.local import Loading, Local, load
from myna.provider.powers import OURS, Powers
from myna.provider.probe import CALLS, probe
from myna.records import (
    Candidate,
    Conversation,
    Delta,
    Document,
    Message,
    ProviderError,
    Reply,
    RequestError,
    Sampled,
    Sampling,
    ToolCall,
    Usage,
)

HELLO = "Hello Ann!"


def tried(script: Any) -> Powers:
    model = Scripted(script)
    found = asyncio.run(probe(model))
    assert len(model.requests) <= CALLS
    assert all((one.sampling.max_tokens or 999) <= 60 for one in model.requests)
    return found


class Bare:
    """Says one thing, whatever it is asked for."""

    name = "bare"

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        yield Delta()
        yield Delta(text=HELLO, finish_reason="stop")


def test_an_endpoint_that_says_nothing_twice_has_not_kept_a_seed() -> None:
    assert not tried(repeat("")).seed
    assert tried(repeat("same")).seed


def test_an_endpoint_that_drops_every_field_has_no_power_and_what_it_said_is_told() -> None:
    found = asyncio.run(probe(Bare()))
    assert (found.forms, found.tools, found.arguments, found.logprobs, found.several, found.usage) == (
        (), False, False, 0, False, False,
    )  # fmt: skip
    assert found.refused["schema"] == f"answered {HELLO!r}"


def test_an_endpoint_that_refuses_every_field_is_told_with_its_words() -> None:
    def answers() -> Iterator[Any]:
        yield HELLO
        yield from repeat(RequestError("no such field", param="x"))

    found = tried(answers())
    assert found.forms == ()
    assert not found.seed
    assert set(found.refused.values()) == {"no such field"}


def test_an_endpoint_that_answers_nothing_is_an_error() -> None:
    with pytest.raises(ProviderError):
        asyncio.run(probe(Scripted(repeat(ProviderError("it is down")))))


def test_an_endpoint_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(Bare):
        async def stream(
            self, what: Conversation | Document, sampling: Sampling = Sampling()
        ) -> AsyncGenerator[Delta, None]:
            await asyncio.sleep(10)
            yield Delta()

    async def bounded() -> None:
        async with asyncio.timeout(2):
            await probe(Hangs())

    monkeypatch.setattr("myna.provider.probe.SECONDS", 0.01)
    with pytest.raises(ProviderError, match="no answer within"):
        asyncio.run(bounded())


def test_answers_that_differ_under_one_seed_are_no_seed() -> None:
    assert not tried([*[HELLO] * 10, "one", "another"]).seed  # the tenth is the second of two candidates
    assert tried([*[HELLO] * 10, "one", "one"]).seed


SCHEMA = '{"code": "kw-38", "count": 950}'
KEEPS = {"json": "{}", "schema": SCHEMA, "regex": "345673z", "choice": "zq-71", "grammar": "<3>#"}
NEARLY = {
    "json": "[]",
    "schema": '{"code": "kw-38", "count": 950, "x": 1}',
    "regex": "345673",
    "choice": "zq-7",
    "grammar": "<3>",
}


def by_form(said: dict[str, str]) -> Callable[[], Iterator[str]]:
    def answers() -> Iterator[str]:
        yield HELLO
        yield from said.values()
        yield from repeat(HELLO)

    return answers


def test_each_form_that_is_kept_is_a_power_and_a_near_miss_is_none() -> None:
    assert tried(by_form(KEEPS)()).forms == ("json", "schema", "regex", "choice", "grammar")
    assert tried(by_form(NEARLY)()).forms == ()


def test_a_tool_call_counts_with_its_arguments() -> None:
    def answers(arguments: str) -> Iterator[Any]:
        yield from [HELLO] * 6
        yield Message("assistant", "", tool_calls=(ToolCall("1", "file_report", arguments),))
        yield from repeat(HELLO)

    assert (found := tried(answers(SCHEMA))).tools
    assert found.arguments
    assert not tried(answers('{"code": "Ann", "count": 1}')).arguments


def test_log_probabilities_count_with_their_alternatives() -> None:
    token = Sampled(5, b"a", -0.5, (Sampled(5, b"a", -0.5), Sampled(6, b"b", -1.5)))
    one = Reply((Candidate((Message("assistant", "a"),), finish_reason="stop"),), ((token,),), Usage(3, 1))
    assert tried(repeat(one)).logprobs == 2


@pytest.fixture(scope="module")
def local(smollm2: Path) -> Iterator[Local]:
    provider = load(str(smollm2), Loading(kv_gb=0.2))
    yield provider
    provider.close()


def test_our_engine_does_what_is_said_of_it(local: Local) -> None:
    """Without this, OURS would be a belief."""
    found = asyncio.run(probe(local))
    assert set(found.forms) == set(OURS.forms) - {"tags"}
    assert (found.tools, found.arguments, found.several, found.seed, found.usage) == (True,) * 5
    assert found.logprobs == 2
    assert found.refused == {}
    assert powers.of(local) is OURS


def test_what_was_found_is_kept_by_endpoint_and_known_when_it_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert powers.of(connect("http://127.0.0.1:9/v1#a")) == Powers()
    found = Powers(forms=("schema",), seed=True, logprobs=5, tried=1.5, refused={"regex": "answered 'x'"})
    powers.write("http://127.0.0.1:9/v1#a", found)
    powers.write("http://127.0.0.1:9/v1#b", Powers())
    assert powers.of(connect("http://127.0.0.1:9/v1/#a")) == found
    assert powers.of(connect("http://127.0.0.1:9/v1#b")) == Powers()
    assert powers.of(connect("http://127.0.0.1:9/v1#c")) == Powers()


@pytest.mark.parametrize(
    "damaged", [b"", b"[]", b'{"http://h/v1#m": 3}', b'{"http://h/v1#m": {"forms": "x"}}', b"\xff"]
)
def test_a_damaged_file_is_nothing_known(damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    powers.file().parent.mkdir()
    powers.file().write_bytes(damaged)
    assert powers.read("http://h/v1#m") is None
    powers.write("http://h/v1#m", OURS)
    assert powers.read("http://h/v1#m") == OURS
    assert json.loads(powers.file().read_text())
