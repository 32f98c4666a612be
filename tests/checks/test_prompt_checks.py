"""A prompt file's own checks: read before any call, and what is done where one says no."""

import asyncio
from typing import Any

import pytest

from myna.apps.prompt import Prompt, ask
from myna.checks.guard import Refused
from myna.provider import Scripted
from myna.records import DataError, RequestError

HEAD = "---\ninputs: {{notes: {{type: string, untrusted: true}}}}\nchecks: {checks}\n{more}---\nSummarise: {{{{ notes }}}}\n"


def prompt(checks: str, more: str = "") -> Prompt:
    return Prompt.parse(HEAD.format(checks=checks, more=more), "p")


def answered(
    made: Prompt, script: list[Any], notes: str = "The tower is 330 m tall.", **more: Any
) -> tuple[str, Scripted]:
    scripted = Scripted(script)
    return asyncio.run(ask(made, {"notes": notes}, scripted, **more)).text, scripted


def test_checks_are_asked_for_again_and_mended_as_the_file_says() -> None:
    made = prompt("[{length: {most: 20}}, {pii: {otherwise: fix}}]")
    text, scripted = answered(made, ["much too long to be an answer here", "to a@b.cc"])
    assert (text, len(scripted.requests)) == ("to <EMAIL_1>", 2)


def test_an_input_is_the_evidence_and_is_not_sent_twice() -> None:
    made = prompt("[{grounding: {inputs: [notes]}}]")
    text, scripted = answered(made, ["塔高331米。", "It is 330 m tall."])
    assert (text, len(scripted.requests)) == ("It is 330 m tall.", 2)
    assert scripted.requests[0].what.messages[-1].text.count("330 m tall") == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("checks", "error"),
    [
        ("[lenght]", "checks.0: 'lenght' is not a check"),
        ("[{length: {mots: 3}}]", "checks.0.length.mots"),
        ("[{length: {most: 3, otherwise: pray}}]", "checks.0.length.otherwise"),
        ("[{number: {otherwise: fix}}]", "cannot mend"),
        ("[{regex: {pattern: '('}}]", "linear time"),
        ("length", "expected a list"),
    ],
)
def test_a_check_that_cannot_be_is_refused_when_the_file_is_read(checks: str, error: str) -> None:
    with pytest.raises(DataError, match=error):
        prompt(checks)


def test_a_judge_is_the_model_that_answers_and_its_calls_are_counted() -> None:
    made = prompt("[{judge: {rubric: 'Is it short?'}}, {judge: {rubric: 'Is it true?'}}]", "limits: {calls: 6}\n")
    text, scripted = answered(made, ["first", "fail", "pass", "second", "pass", "pass"])
    assert (text, len(scripted.requests)) == ("second", 6)
    with pytest.raises(Refused, match="none of 2 answers"):
        answered(made, ["first", "fail", "pass", "second", "pass", "fail", "third"])
    with pytest.raises(RequestError, match="takes up to 3"):
        answered(prompt("[{judge: {rubric: a}}, {judge: {rubric: b}}]", "limits: {calls: 2}\n"), [])


def test_what_needs_something_that_is_not_there_fails_before_any_call() -> None:
    for checks, error in (
        ("[sql]", "needs a guard"),
        ("[human]", "needs a ask|needs an ask"),
        ("[{length: {most: 1, otherwise: escalate}}]", "nobody is there"),
    ):
        scripted = Scripted(["x"])
        with pytest.raises(DataError, match=error):
            asyncio.run(ask(prompt(checks), {"notes": "x"}, scripted))
        assert not scripted.requests


def test_the_version_covers_the_checks() -> None:
    assert prompt("[pii]").version != prompt("[moderation]").version
