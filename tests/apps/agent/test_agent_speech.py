"""Which way an agent speaks, and what is particular to answers that are calls."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from apps_agent import Speech, World, sent
from hypothesis import given
from hypothesis import strategies as st

from myna.apps.agent import Agent, run
from myna.apps.agent.bound import WRITTEN, read
from myna.apps.agent.speech import spoken
from myna.apps.tools import tool
from myna.provider import Scripted
from myna.provider.powers import OURS, Powers
from myna.provider.recorded import Recorded
from myna.records import Candidate, Conversation, Message, MynaError, ToolCall, ToolChoice
from myna.trace import Trace


class Held(Scripted):
    """An endpoint that holds calls to their form, as our engine does."""

    powers = OURS


@tool(effect="read")
def answer(text: str) -> str:
    """Somebody's own tool of that name."""
    return text


@pytest.mark.parametrize(
    ("powers", "tools", "speech"),
    [
        (OURS, {"note"}, "bound"),
        (Powers(tools=True, arguments=True, tried=1.0), {"note"}, "bound"),
        (Powers(tools=True, arguments=False, tried=1.0), {"note"}, "native"),
        (Powers(tools=False, tried=1.0), {"note"}, "react"),
        (Powers(), {"note"}, "native"),
        (OURS, set(), "native"),
        (Powers(tools=False, tried=1.0), set(), "native"),
        (OURS, {"note", "answer"}, "native"),
    ],
)
def test_what_is_known_of_the_endpoint_decides_unless_the_agent_says(
    powers: Powers, tools: set[str], speech: Any
) -> None:
    class Tried(Scripted):
        pass

    Tried.powers = powers  # type: ignore[attr-defined]
    provider = Tried([])
    assert spoken(Agent("a", ""), provider, frozenset(tools)) == speech
    for own in ("native", "bound", "react"):
        assert spoken(Agent("a", "", speech=own), provider, frozenset(tools)) == own  # type: ignore[arg-type]


def test_an_agent_that_answers_by_a_call_has_no_tool_of_that_name() -> None:
    with pytest.raises(MynaError, match="no tool of its own is called that"):
        Agent("a", "", (answer,), speech="bound")
    ended = asyncio.run(run(Agent("a", "", (answer,)), "?", Held([_call("answer", {"text": "x"}), "yes"])))
    assert [one.result for one in ended.outcomes] == ["x"]
    assert ended.answer == "yes"
    with pytest.raises(MynaError, match="no tool of its own is called that"):
        Agent("a", "", helpers=(Agent("answer", ""),), speech="bound")


def test_every_turn_is_asked_for_one_call_and_the_answer_is_among_them(world: World) -> None:
    script = Held([_call("population", {"city": "杭州"}), _call("answer", {"text": "一千二百五十万"})])
    ended = asyncio.run(run(Agent("clerk", "You help.", world.tools), "杭州有多少人？", script))
    assert (ended.reason, ended.answer, [one.status for one in ended.outcomes]) == ("done", "一千二百五十万", ["ok"])
    for seen in script.requests:
        assert isinstance(seen.what, Conversation)
        assert [one["function"]["name"] for one in seen.what.tools] == ["population", "mail", "note", "wipe", "answer"]
        assert seen.sampling.tool_choice == ToolChoice("required", parallel=False)
    assert ended.messages[-1] == Message("assistant", "一千二百五十万")


def test_after_a_write_and_no_read_the_model_is_told_that_it_is_done(world: World) -> None:
    made = [_call("population", {"city": "Lyon"}), _call("note", {"text": "n"}), _call("wipe", {"what": "n"})]
    script = Held([*made, _call("answer", {"text": "done"})])
    ended = asyncio.run(run(Agent("clerk", "", world.tools), "?", script))  # nobody is there to allow the last
    assert [sent(script, at).endswith(WRITTEN) for at in range(4)] == [False, False, True, False]
    assert not any(WRITTEN in message.text for message in ended.messages)


def test_calls_beside_an_answer_are_run_and_the_answer_is_what_is_said_beside_them(world: World) -> None:
    both = Message("assistant", "So:", tool_calls=(_one("answer", {"text": "noted"}), _one("note", {"text": "n"})))
    script = Held([both, _call("answer", {"text": "done"})])
    ended = asyncio.run(run(Agent("clerk", "", world.tools), "?", script))
    assert world.done == [("note", "n")]
    assert ended.messages[1].text == "So:\n\nnoted"
    assert ended.answer == "done"


@pytest.mark.parametrize("found", [OURS, Powers(), Powers(tools=False, tried=1.0)])
def test_a_recorded_run_is_replayed_in_the_way_in_which_it_was_made(
    found: Powers, world: World, tmp_path: Path
) -> None:
    class Tried(Scripted):
        powers = found

    agent = Agent("clerk", "", world.tools, helpers=(Agent("idle", "", about="Has no tools."),))
    way = Speech(spoken(agent, Tried([]), frozenset({"note"})))
    script = [way.call("idle", {"task": "x"}), "nothing", way.call("population", {"city": "Lyon"}), way.answer("Many.")]
    trace = Trace(tmp_path / "t.sqlite")
    made = asyncio.run(run(agent, "?", Tried(script), trace=trace))
    assert made.answer == "Many."
    again = asyncio.run(run(agent, "?", Recorded(trace, 1)))
    assert (again.reason, again.messages) == ("done", made.messages)


@pytest.mark.parametrize("arguments", ['{"words": "x"}', '{"text": 3}', "[]", "no JSON", '{"text": "a"} and more'])
def test_an_answer_in_another_form_is_told_and_not_lost(arguments: str, world: World) -> None:
    said = read(Message("assistant", "", tool_calls=(ToolCall("1", "answer", arguments),)), 1)
    assert said.text == ("a" if "and more" in arguments else arguments)
    assert said.tool_calls == ()


@given(st.text(), st.booleans(), st.data())
def test_of_an_answer_that_was_cut_what_is_whole_is_told(text: str, ascii: bool, data: st.DataObject) -> None:
    whole = json.dumps({"text": text}, ensure_ascii=ascii)
    begun = whole[: data.draw(st.integers(len('{"text": "'), len(whole)))]
    said = read(Message("assistant", "", tool_calls=(ToolCall("1", "answer", begun),)), 1).text
    closed = (_closed(begun[:at]) for at in range(len(begun), 0, -1))
    assert said == next(one for one in closed if one is not None).encode(errors="replace").decode()


def _closed(begun: str) -> str | None:
    """The text of an answer that is whole, or would be with its end; the slow truth."""
    for end in ("", "}", '"}'):
        try:
            said: str = json.loads(begun + end)["text"]
        except ValueError:
            continue
        return said
    return None


def test_an_answer_that_was_cut_ends_with_length(world: World) -> None:
    cut = Message("assistant", "", tool_calls=(ToolCall("1", "answer", '{"text": "It is \\"'),))
    ended = asyncio.run(run(Agent("a", "", world.tools), "?", Held([Candidate((cut,), finish_reason="length")])))
    assert (ended.reason, ended.answer) == ("length", 'It is "')


def test_of_an_answer_that_was_cut_a_bare_line_end_is_one() -> None:
    assert read(Message("assistant", "", tool_calls=(ToolCall("1", "answer", '{"text": "一\n二'),)), 1).text == "一\n二"


def test_a_backslash_that_begins_no_escape_is_one() -> None:
    arguments = r'{"text": "the root of \(x\) \\ \"y\" \u4e00\n"}'
    assert read(Message("assistant", "", tool_calls=(ToolCall("1", "answer", arguments),)), 1).text == (
        'the root of \\(x\\) \\ "y" 一\n'
    )


@pytest.mark.parametrize("arguments", [r'{"text": "a\ud83d', r'{"text": "a\ud83d"}', r'{"words": "\ud83d"}'])
def test_half_of_a_character_in_an_answer_is_a_question_mark(arguments: str) -> None:
    said = read(Message("assistant", "", tool_calls=(ToolCall("1", "answer", arguments),)), 1).text
    assert ascii(said) == ascii("a?" if "text" in arguments else arguments)  # half a character is in no report of xdist


def test_an_empty_answer_is_asked_for_again(world: World) -> None:
    script = Held([_call("answer", {"text": " "}), _call("answer", {"text": "ok"})])
    ended = asyncio.run(run(Agent("a", "", world.tools), "?", script))
    assert (ended.reason, ended.answer, ended.spent["calls"]) == ("done", "ok", 2)


def _one(name: str, arguments: Any) -> ToolCall:
    return ToolCall(f"id_{name}", name, json.dumps(arguments, ensure_ascii=False))


def _call(name: str, arguments: Any) -> Message:
    return Message("assistant", tool_calls=(_one(name, arguments),))
