"""Moderations: a check of the user's own, and none that says all is fine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Live

from myna.commands.serve import _by_lists
from myna.provider import Scripted

Start = Callable[..., Live]


def client(server: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_without_a_check_nothing_is_called_fine(live: Start) -> None:
    with pytest.raises(openai.NotFoundError, match="no moderation check"):
        client(live(Scripted())).moderations.create(input="anything")


def listed(tmp_path: Path, text: str = '{"violence": ["kill", "杀人"], "rude": ["Dummkopf"]}') -> Any:
    (tmp_path / "phrases.json").write_text(text, encoding="utf-8")
    return _by_lists((str(tmp_path / "phrases.json"),))


def test_the_client_reads_a_verdict_on_each_text(live: Start, tmp_path: Path) -> None:
    check = listed(tmp_path)
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
def test_what_cannot_be_looked_at_is_refused(live: Start, wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(openai.BadRequestError):
        client(live(Scripted(), check=listed(tmp_path))).moderations.create(input=wrong)


def test_our_own_lists_are_known_by_their_names(live: Start) -> None:
    found = client(live(Scripted(), check=_by_lists(("en", "zh")))).moderations.create(
        input=["f u c k", "怎么自杀", "你好"]
    )
    assert [result.flagged for result in found.results] == [True, True, False]
    assert found.results[1].categories.self_harm
    assert found.model == "lists"
