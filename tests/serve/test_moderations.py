"""Moderations: a check of the user's own, and none that says all is fine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Live

from myna.provider import Scripted
from myna.records import DataError
from myna.serve.moderations import Phrases

Start = Callable[..., Live]


def client(server: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_without_a_check_nothing_is_called_fine(live: Start) -> None:
    with pytest.raises(openai.NotFoundError, match="no moderation check"):
        client(live(Scripted())).moderations.create(input="anything")


def test_the_client_reads_a_verdict_on_each_text(live: Start) -> None:
    check = Phrases({"violence": ["kill", "杀人"], "rude": ["Dummkopf"]})
    connected = client(live(Scripted(), check=check))
    words = ["I will KILL it", "a skilled worker", "他想杀人", "du Dummkopf!"]
    reply = connected.moderations.create(input=words)
    assert [result.flagged for result in reply.results] == [True, False, True, True]
    assert [result.categories.violence for result in reply.results] == [True, False, True, False]
    assert reply.results[3].categories.model_dump()["rude"] is True
    assert reply.results[1].category_applied_input_types.hate == []
    parts: Any = [{"type": "text", "text": "ki"}, {"type": "text", "text": "ll"}]
    assert connected.moderations.create(input=parts).results[0].flagged


@pytest.mark.parametrize("wrong", [[], [{"type": "image_url", "image_url": {"url": "x"}}], 7])
def test_what_cannot_be_looked_at_is_refused(live: Start, wrong: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client(live(Scripted(), check=Phrases({"a": ["b"]}))).moderations.create(input=wrong)


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": []}', '{"a": [" "]}', '{"a": "b"}', "{", '{"a": [1]}'])
def test_a_file_that_would_flag_nothing_or_everything_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "phrases.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"phrases\.json"):
        Phrases.read(file)


def test_a_phrase_is_no_pattern() -> None:
    assert not Phrases({"a": ["(a+)+$"]})._look("aaaa").flagged
    assert Phrases({"a": ["(a+)+$"]})._look("x (a+)+$").flagged
