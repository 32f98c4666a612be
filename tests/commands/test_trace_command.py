"""myna trace: what was recorded, for people and for programs."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from myna.commands import app, main
from myna.commands.trace import opened
from myna.provider import Provider, Scripted, complete
from myna.provider.traced import Traced
from myna.records import Conversation, DataError, Message, MynaError, ProviderError, RequestError, Sampling, jsonl
from myna.trace import Trace
from myna.trace.read import tree


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run (1) of two steps (2, 4) with a call each (3, 5)."""
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    trace = Trace(tmp_path / "t.sqlite")
    provider = Traced(Scripted(["晴", "雨", "\x1b[31m好"]), trace)
    with trace.span("flow", "[bold]天气[/]"):
        with trace.span("step", "ask") as step:
            talk(provider, Sampling(n=2))
            step.check("length", False, 0.0, "too short")
        with trace.span("step", "answer"):
            talk(provider)
    return tmp_path / "t.sqlite"


def talk(provider: Provider, sampling: Sampling = Sampling()) -> None:
    asyncio.run(complete(provider, Conversation.of(("system", "一句话"), ("user", "天气?")), sampling))


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def test_runs_are_listed_with_what_they_took(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "myna").mkdir()
    (file.parent / "myna/prices.yaml").write_text(
        "currency: 元\nprices: [{model: scripted, input: 1000000, output: 0}]\n"
    )
    talk(Traced(Scripted(["x"]), opened(None)))
    myna("trace", "list")
    _, newest, first = capsys.readouterr().out.splitlines()
    assert "call scripted" in newest
    assert "flow [bold]天气[/]" in first
    assert first.split()[-3] == "2"
    assert first.split()[-1] == "?"
    assert newest.split()[-2:] == ["2.0000", "元"]


def test_a_call_is_shown_exactly_and_moves_no_cursor(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("trace", "show", 5)
    out = capsys.readouterr().out
    assert "[system]\n一句话\n[user]\n天气?\n[answer, stop]\n\\x1b[31m好\n" in out
    myna("trace", "show", 1)
    out = capsys.readouterr().out
    assert "check length: FAILED 0 too short" in out
    assert "step ask: 0 of 1 passed" in out
    myna("trace", "show", 1, "--json")
    shown = json.loads(capsys.readouterr().out)
    call = shown["below"][0]["below"][0]["call"]
    assert [one["messages"][0]["content"] for one in call["answers"]] == ["晴", "雨"]
    assert call["asked"]["messages"][1] == {"role": "user", "content": "天气?"}
    assert call["sampling"] == {"n": 2}


def test_a_run_is_asked_again_of_another_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = file.parent / "other.jsonl"
    script.write_text('"晴"\n"雨"\n"阴"\n', encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        myna("trace", "replay", 1, "--model", f"script:{script}")
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "- \\x1b[31m好\n+ 阴" in out
    assert "1 of 2 answers are the same" in out
    myna("trace", "replay", 1, "--model", f"replay:{file}#1")
    assert "2 of 2 answers are the same" in capsys.readouterr().out


def test_only_what_came_with_consent_is_exported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "rows.jsonl"
    myna("trace", "feedback", 5, "thumb", "down")
    myna("trace", "export", "--out", out)
    assert [*jsonl.read(out, Conversation)] == []
    myna("trace", "feedback", 3, "choice", "1", "--consent")
    myna("trace", "export", "--out", out)
    (row,) = jsonl.read(out, Conversation)
    assert row.messages[-1].text == "雨"
    assert row.meta == {"run": 1, "span": 3, "model": "scripted"}
    myna("trace", "feedback", 2, "edit", "改", "--consent")  # a span above: its calls may be used, their answers stand
    myna("trace", "feedback", 3, "edit", "改", "--consent")
    myna("trace", "export", "--out", out, "--preferences")
    (row,) = jsonl.read(out, Conversation)
    assert [(one.text, one.score) for one in row.candidates] == [("晴", 0.0), ("雨", 0.0), ("改", 1.0)]
    assert row.messages[-1] == Message("user", "天气?")
    myna("trace", "feedback", 3, "edit", "不给别人看")  # said later, and without consent: what came with it holds
    myna("trace", "export", "--out", out)
    assert [one.messages[-1].text for one in jsonl.read(out, Conversation)] == ["改"]
    myna("trace", "export", "--out", out, "--everything")
    assert len([*jsonl.read(out, Conversation)]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 calls")


def test_a_replay_that_fails_says_so_and_moves_no_cursor(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    down = Scripted([ProviderError("busy \x1b[2J")] * 2)
    monkeypatch.setattr("myna.provider.connect.connect", lambda where: down)
    with pytest.raises(SystemExit) as ended:
        myna("trace", "replay", 1)
    assert ended.value.code == 1
    assert capsys.readouterr().out == "span 3: busy \\x1b[2J\nspan 5: busy \\x1b[2J\n0 of 2 answers are the same\n"


@pytest.mark.parametrize("outs", [("t.sqlite",), ("rows.jsonl", "t.sqlite"), ("rows.jsonl", "./rows.jsonl")])
def test_an_export_loses_no_file(file: Path, outs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(RequestError, match="name another"):
        myna("trace", "export", "--everything", "--out", outs[0], *(("--held-out", outs[1]) if outs[1:] else ()))
    with pytest.raises(RequestError, match="trace itself"):
        myna("trace", "send", "t.sqlite")
    assert len(tree(Trace(file).store, 1).spans) == 5
    assert not Path("rows.jsonl").exists()


def test_an_error_says_where_what_came_until_then_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Trace(file.parent / "other one.sqlite")

    def fail() -> None:
        with trace.span("prompt", "p"), trace.span("attempt", "1"):
            talk(Traced(Scripted([("half an ans", ProviderError("cut."))]), trace))

    monkeypatch.setattr("myna.commands.app", fail)
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said == f"myna: cut. (what came until then: myna trace show 1 --trace '{trace.store.path}')\n"
    monkeypatch.setenv("MYNA_TRACE", str(trace.store.path))
    with pytest.raises(SystemExit):
        main()
    assert "myna trace show 4)\n" in capsys.readouterr().err

    def early() -> None:
        with trace.span("prompt", "p"):
            with suppress(ProviderError):
                talk(Traced(Scripted([ProviderError("no connection")]), trace))
            raise RequestError("no such input")

    monkeypatch.setattr("myna.commands.app", early)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "myna: no such input\n"


def test_a_run_that_is_damaged_hides_no_other(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = Trace(file)
    with trace.span("flow", "odd") as odd:
        pass
    trace.store.rows("UPDATE spans SET facts = '{' WHERE id = ?", odd.id)
    myna("trace", "list")
    _, broken, whole = capsys.readouterr().out.splitlines()
    assert broken.split()[:5] == [str(odd.id), "run", str(odd.id), "is", "damaged:"]
    assert "flow [bold]天气[/]" in whole


def test_half_an_answer_is_no_example(file: Path) -> None:
    out, trace = file.parent / "rows.jsonl", opened(None)
    with pytest.raises(ProviderError):
        talk(Traced(Scripted([("half an ans", ProviderError("cut"))]), trace))
    myna("trace", "feedback", 6, "thumb", "up", "--consent")
    assert tree(trace.store, 6).call is not None
    stopped = Traced(Scripted(["a whole answer that nobody waits for"]), trace).stream(Conversation.ask("?"))

    async def first() -> None:
        while not (await anext(stopped)).text:
            pass
        await stopped.aclose()

    asyncio.run(first())
    trace.feedback(7, "thumb", 1, consent=True)
    assert tree(trace.store, 7).outcome == "cancelled"
    for call in (6, 7):
        for flags in ((), ("--everything",)):
            myna("trace", "export", call, "--out", out, *flags)
            assert [*jsonl.read(out, Conversation)] == []


@pytest.mark.parametrize(
    "words",
    [
        ("show", 99),
        ("replay", 2000),
        ("export", 99, "--out", "x"),
        ("feedback", 5, "thumb", "sideways"),
        ("feedback", 5, "choice", "best"),
        ("feedback", 5, "choice", "9" * 5000),
        ("list", "--limit", "0"),
    ],
)
def test_what_is_not_there_is_said(file: Path, words: tuple[object, ...]) -> None:
    with pytest.raises(RequestError):
        myna("trace", *words)
    with pytest.raises(DataError, match="no trace file"):
        myna("trace", "list", "--trace", file.parent / "none.sqlite")
    assert not (file.parent / "none.sqlite").exists()


def asked(trace: Trace, question: str, answer: str, thumb: int = 1) -> int:
    """A run of one call that somebody thought of with consent."""
    with trace.span("flow", "app") as flow:
        provider = Traced(Scripted([answer]), trace)
        asyncio.run(complete(provider, Conversation.ask(question)))
    trace.feedback(flow.id, "thumb", thumb, consent=True)
    return flow.id


def test_what_is_exported_holds_no_personal_data_and_says_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(Trace(file), "Who is 13812345678?", "wang@example.com")
    out = file.parent / "rows.jsonl"
    myna("trace", "export", "--out", out)
    (row,) = jsonl.read(out, Conversation)
    assert [message.text for message in row.messages] == ["Who is <PHONE_1>?", "<EMAIL_1>"]
    assert "personal data masked in 1" in capsys.readouterr().out
    myna("trace", "export", "--out", out, "--everything")
    assert "13812345678" in out.read_text()


def test_an_answer_that_was_turned_down_is_no_example_unless_a_better_one_was_given(file: Path) -> None:
    trace, out = Trace(file), file.parent / "rows.jsonl"
    asked(trace, "好吗?", "bad", thumb=-1)
    good = asked(trace, "谁?", "bad", thumb=-1)
    myna("trace", "feedback", good + 1, "edit", "better", "--consent")
    myna("trace", "export", "--out", out)
    assert [row.messages[-1].text for row in jsonl.read(out, Conversation)] == ["better"]


def test_an_edit_of_a_run_is_one_of_its_only_call(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("trace", "feedback", 4, "edit", "改", "--consent")
    assert "on span 5" in capsys.readouterr().out
    myna("trace", "export", "--out", file.parent / "p.jsonl", "--preferences")
    (row,) = jsonl.read(file.parent / "p.jsonl", Conversation)
    assert row.meta["span"] == 5
    with pytest.raises(RequestError, match="its calls are 3, 5"):
        myna("trace", "feedback", 1, "edit", "改")


def test_runs_that_measure_are_not_learned_from_nor_is_what_asks_the_same(file: Path) -> None:
    trace, folder = Trace(file), file.parent
    for k in range(40):
        asked(trace, f"Question number {k % 10}, 第{k % 10}个问题?", f"answer {k}")

    def export() -> tuple[list[Conversation], list[Conversation]]:
        myna("trace", "export", "--out", folder / "t.jsonl", "--held-out", folder / "e.jsonl", "--share", 0.2)
        train, held = (list(jsonl.read(folder / name, Conversation)) for name in ("t.jsonl", "e.jsonl"))
        return train, held

    train, held = export()
    assert train
    assert held
    assert not {row.meta["run"] for row in train} & {row.meta["run"] for row in held}
    assert not {row.messages[0].text for row in train} & {row.messages[0].text for row in held}
    before = {row.meta["run"] for row in held}
    for k in range(10, 20):
        asked(trace, f"Question number {k}?", "more")
    assert before <= {row.meta["run"] for row in export()[1]}


def test_all_of_a_run_is_learned_from_or_measured_on(file: Path) -> None:
    trace, folder = Trace(file), file.parent
    for k in range(30):
        with trace.span("flow", f"run {k}") as span:
            for question in (f"Who wrote letter {k} of the archive?", f"第{k}号档案是哪一年写的？"):
                provider = Traced(Scripted([f"answer {k}"]), trace)
                asyncio.run(complete(provider, Conversation.of(("user", question)), Sampling()))
        trace.feedback(span.id, "thumb", 1, consent=True)
    myna("trace", "export", "--out", folder / "t.jsonl", "--held-out", folder / "e.jsonl", "--share", 0.4)
    train, held = (
        {row.meta["run"] for row in jsonl.read(folder / name, Conversation)} for name in ("t.jsonl", "e.jsonl")
    )
    assert train
    assert held
    assert not train & held


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--limit", 0),
        ("feedback", 5, "choice", 7),
        ("feedback", 5, "edit", " "),
        ("export", "--out", "x", "--held-out", "y", "--share", 2),
    ],
)
def test_what_says_nothing_is_refused(file: Path, words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(RequestError):
        myna("trace", *words)


def test_a_number_that_no_span_can_have_is_an_error_and_no_traceback(file: Path) -> None:
    with pytest.raises(MynaError):
        myna("trace", "show", 10**30)
    with pytest.raises(MynaError):
        myna("trace", "feedback", 10**30, "thumb", "up")


def test_a_file_without_a_byte_is_not_made_into_a_trace_by_looking_at_it(file: Path) -> None:
    empty = file.parent / "empty"
    empty.touch()
    with pytest.raises(DataError, match="no trace file"):
        myna("trace", "list", "--trace", empty)
    assert empty.stat().st_size == 0


def test_a_price_file_that_cannot_be_read_is_an_error(file: Path) -> None:
    (file.parent / "myna/prices.yaml").mkdir(parents=True)
    with pytest.raises(DataError, match="prices"):
        myna("trace", "list")


def test_a_long_error_leaves_room_for_the_numbers(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom"), Trace(file).span("flow", "bad"):
        raise ValueError("boom " * 100)
    myna("trace", "list")
    assert max(map(len, capsys.readouterr().out.splitlines())) < 200
