"""myna trace list, show, replay, export, send, feedback: what calls, tools and checks did."""

import asyncio
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column, Table
from rich.tree import Tree

from myna.commands.options import printable, spoken
from myna.records import Conversation, DataError, MynaError, RequestError, Usage, jsonl
from myna.trace import Prices, Trace, TraceError
from myna.trace.export import conversations, pairs
from myna.trace.read import Node, Total, latest, pass_rates, runs, total, tree
from myna.trace.request import read_reply, read_request, write_sampling
from myna.trace.where import price_file, trace_file

app = App(name="trace", help="What models were asked, what they answered, and what it took.")
BRIEF = 70  # characters of how a run ended, in a list
TraceFile = Annotated[Path | None, Parameter(name="--trace")]


def opened(trace: Path | None, *, new: bool = False) -> Trace:
    """The trace file that is meant, with this user's prices. One that is only read must be there."""
    path = trace or trace_file()
    if not new and not (path.is_file() and path.stat().st_size):  # an empty file is not made into one by looking at it
        raise DataError(
            f"there is no trace file {path}. Runs make it, such as `myna prompt run`; or name one with --trace."
        )
    return Trace(path, Prices.read(price_file()))


@app.command(name="list")
def list_runs(*, trace: TraceFile = None, limit: int = 20) -> None:
    """The latest runs, the newest first: how they ended, how many calls they made, and what those took.

    Parameters
    ----------
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    limit
        How many runs.
    """
    if limit < 1:
        raise RequestError("--limit is 1 or more.", param="limit")
    file = opened(trace)
    columns = ("run", "when", "what", "ended", "seconds", "calls", "tokens", "cost")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, header_style="bold")
    for number in latest(file.store, min(limit, 2**62)):
        try:
            run = tree(file.store, number)
        except TraceError as e:  # the others can be read
            table.add_row(str(number), "", "", printable(_brief(str(e).partition(": ")[2])))
            continue
        table.add_row(str(run.id), _when(run.began), printable(f"{run.kind} {run.name}"), printable(_brief(_ended(run))), _seconds(run),
                      *_sums(total(run.spans), file.prices.currency))  # fmt: skip
    Console(highlight=False, soft_wrap=True, width=1000).print(table)  # as wide as it is


@app.command
def show(span: int, /, *, trace: TraceFile = None, json: bool = False) -> None:
    """A run, or a part of it: every span, and of a call exactly what was asked and answered.

    Parameters
    ----------
    span
        The number of a run or of any span.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    json
        All of it as one JSON object, for programs.
    """
    file = opened(trace)
    node = tree(file.store, span)
    if json:
        print(orjson.dumps(_as_json(file, node)).decode())
        return
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(_drawn(node, file.prices.currency))
    if node.call:
        _print_call(file, node, screen)
    for name, (passed, of) in pass_rates(node).items():
        screen.print(printable(f"step {name}: {passed} of {of} passed"))


@app.command
def replay(run: int, /, *, model: str | None = None, trace: TraceFile = None) -> None:
    """Ask a model everything that a run asked, once more, and show where its answers differ. The new calls are a run of their own. Exit
    status 1 where one differs or does not come.

    Parameters
    ----------
    run
        The run.
    model
        Who is asked: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; the model of the run if left out.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.provider.connect import connected
    from myna.provider.traced import Traced

    file = opened(trace)
    calls = [node for node in tree(file.store, run).spans if node.call and node.call.reply and node.outcome == "ok"]
    if not calls:
        raise RequestError(
            f"run {run} has no finished calls; `myna trace show {run}` says how they ended.", param="run"
        )
    model = model or (calls[0].call.model if calls[0].call else "")
    with connected(model) as provider:
        same = asyncio.run(_again(file, calls, Traced(provider, file), f"run {run} by {model}"))
    print(f"{same} of {len(calls)} answers are the same")
    if same < len(calls):
        sys.exit(1)


@app.command
def export(
    *span: int,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    preferences: bool = False,
    everything: bool = False,
    held_out: Path | None = None,
    share: float = 0.1,
    trace: TraceFile = None,
) -> None:
    """Write calls as conversations, JSON lines to train on or to look at: those that came with consent, with personal data masked.

    Parameters
    ----------
    span
        Runs or spans; all runs if left out.
    out
        The file.
    preferences
        Of answers that were edited or chosen: the question with the better and the other answers, for dpo.
    everything
        All calls, whether or not anybody consented, as they are: for your own eyes.
    held_out
        Write the rows of some runs to this file instead, to measure on. Rows that ask what stands in it are left out of the other.
    share
        Of how many of the runs; which ones is the same at each export.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    file = opened(trace)
    _refuse_itself(file, out, *([held_out] if held_out else []))
    chosen = [tree(file.store, one) for one in span] if span else runs(file.store, limit=-1)[::-1]
    rows = (pairs if preferences else conversations)(file.store, chosen, everything=everything)
    clean, masked = ([*rows], 0) if everything else _scrubbed(rows)
    kinds = "whose answer was edited or chosen" if preferences else "that finished"
    kinds += "" if everything else ", came with consent" + ("" if preferences else " and was not turned down")
    if held_out:
        clean, held, alike = _split(clean, share)
        kinds += f"; {jsonl.write(held_out, held)} more of other runs -> {held_out}, and {alike} that are like one of these left out"
    written = jsonl.write(out, clean)
    calls = total([node for one in chosen for node in one.spans]).calls
    hidden = f"; personal data masked in {masked}" if masked else ""
    print(f"{written} of {calls} calls -> {out}: those {kinds}{hidden}")


@app.command
def send(where: str, /, *span: int, content: bool = False, trace: TraceFile = None) -> None:
    """Give spans to an OpenTelemetry collector, or write them to a file for one. Needs the extra otel.

    Parameters
    ----------
    where
        A collector's http://HOST:4318 (OTLP over HTTP; headers from $OTEL_EXPORTER_OTLP_HEADERS), or a file, one JSON line for up to
        512 spans.
    span
        Runs or spans; all runs if left out.
    content
        With what was asked and answered; without it names, numbers and times alone leave this machine.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.trace import otel

    file = opened(trace)
    chosen = [tree(file.store, one) for one in span] if span else runs(file.store, limit=-1)[::-1]
    messages = otel.messages(file.store, chosen, content=content)
    if where.partition("://")[0] in ("http", "https"):
        headers, sent = otel.headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")), 0
        for message in messages:
            otel.send(where, message, headers)
            sent += otel.count(message)
    else:
        _refuse_itself(file, Path(where))
        sent = otel.write(Path(where), messages)
    print(f"{sent} spans -> {spoken(where)}" + ("" if content else ", without what was said (--content adds it)"))


@app.command
def feedback(
    span: int,
    kind: Literal["thumb", "edit", "choice", "note"],
    value: str,
    /,
    *,
    consent: bool = False,
    trace: TraceFile = None,
) -> None:
    """Say what you think of a span.

    Parameters
    ----------
    span
        Its number.
    kind
        thumb: up or down; edit: the answer as it should have been; choice: the number of the best candidate; note: anything.
    value
        What it says.
    consent
        It may become training data.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    thumbs = {"up": 1, "down": -1}
    if kind == "thumb" and value not in thumbs:
        raise RequestError("a thumb is up or down.", param="value")
    if kind == "choice" and not (value.isdecimal() and len(value) < 10):
        raise RequestError("a choice is the number of a candidate, from 0.", param="value")
    said = thumbs[value] if kind == "thumb" else int(value) if kind == "choice" else value
    file = opened(trace)
    if kind in ("edit", "choice"):
        span = _the_call(file, span, said)
    number = file.feedback(span, kind, said, consent=consent)
    print(f"feedback {number} on span {span}" + ("" if consent else "; without --consent it is never exported"))


def _the_call(file: Trace, span: int, said: object) -> int:
    """The call that an edit or a choice is of: the span, or the one call below it."""
    calls = [node for node in tree(file.store, span).spans if node.call]
    if len(calls) != 1:
        which = f"its calls are {', '.join(str(one.id) for one in calls[:10])}" if calls else "it has none"
        raise RequestError(
            f"an edit or a choice is of one call's answer, and span {span} is no call: {which}.", param="span"
        )
    (node,) = calls
    assert node.call
    answers = len(read_reply(file.store, node.call.reply, Usage()).candidates) if node.call.reply else 0
    if isinstance(said, int) and said >= answers:
        raise RequestError(f"call {node.id} has {answers} answers, counted from 0.", param="value")
    return node.id


def _refuse_itself(file: Trace, *outs: Path) -> None:
    """Raises RequestError where a file to be written is the trace, or two are one."""
    for number, out in enumerate(outs):
        if out.exists() and out.samefile(file.store.path):
            raise RequestError(f"{out} is the trace itself, and would be lost; name another file.", param="out")
        if out.resolve() in [other.resolve() for other in outs[:number]]:
            raise RequestError(f"{out} is to be two files; name another for one of them.", param="held_out")


def _scrubbed(rows: Iterable[Conversation]) -> tuple[list[Conversation], int]:
    """The rows without personal data, and in how many there was some."""
    from myna.checks.scrub import scrubbed

    found = [scrubbed(row) for row in rows]
    return [row for row, _ in found], sum(values > 0 for _, values in found)


def _split(rows: list[Conversation], share: float) -> tuple[list[Conversation], list[Conversation], int]:
    """Rows to learn from, rows to measure on, and how many of the first were like one of the second."""
    from myna.data.split import apart
    from myna.trace.export import held_out

    if not 0 < share < 1:
        raise RequestError("--share is between 0 and 1.", param="share")
    held = [row for row in rows if held_out(int(row.meta["run"]), share)]
    train = [row for row in rows if not held_out(int(row.meta["run"]), share)]
    kept = [row for row, clear in zip(train, apart(train, held), strict=True) if clear]
    return kept, held, len(train) - len(kept)


async def _again(file: Trace, calls: list[Node], provider: object, name: str) -> int:
    """How many answers are the same. Each that is not is shown."""
    from myna.provider import complete

    same = 0
    with file.span("replay", name):
        for node in calls:
            assert node.call
            what, sampling = read_request(file.store, node.call.request)
            before = read_reply(file.store, node.call.reply or "", Usage())
            try:
                after = await complete(provider, what, sampling)  # type: ignore[arg-type]
            except MynaError as e:
                print(f"span {node.id}: {spoken(str(e))}")
                continue
            if [one.messages for one in after.candidates] == [one.messages for one in before.candidates]:
                same += 1
                continue
            print(f"span {node.id}:\n- {spoken(before.text)}\n+ {spoken(after.text)}")
    return same


def _drawn(node: Node, currency: str) -> Tree:
    calls, tokens, cost = _sums(total(node.spans), currency)
    took = (
        f", {calls} calls, {tokens} tokens, {cost}"
        if node.below and calls != "0"
        else f", {tokens} tokens, {cost}"
        if node.call
        else ""
    )
    drawn = Tree(
        printable(f"{node.id} {node.kind} {node.name}: {_ended(node)}, {_seconds(node)} s{took}"), guide_style="dim"
    )
    for check in node.checks:
        drawn.add(printable(f"check {check.name}: {'ok' if check.ok else 'FAILED'} {check.score:g} {check.reason}"))
    for said in node.feedback:
        drawn.add(printable(f"{said.kind}: {said.value}{'' if said.consent else ' (no consent)'}"))
    for name, value in node.facts.items():
        drawn.add(printable(f"{name}: {value}"))
    for one in node.below:
        drawn.add(_drawn(one, currency))
    return drawn


def _print_call(file: Trace, node: Node, screen: Console) -> None:
    assert node.call
    what, sampling = read_request(file.store, node.call.request)
    how = orjson.dumps(write_sampling(sampling)).decode()
    screen.print()
    screen.print(printable(f"asked of {node.call.model}, {how}"))
    if isinstance(what, Conversation):
        for tool in what.tools:
            screen.print(printable(f"tool {orjson.dumps(tool).decode()}"))
        for message in what.messages:
            screen.print(f"[{message.role}]", style="bold", markup=False)
            screen.print(printable(_message(message.to_json()), {"\n": "\n"}))
    else:
        screen.print(printable(what.text, {"\n": "\n"}))
    if node.call.reply:
        for candidate in read_reply(file.store, node.call.reply, node.call.usage or Usage()).candidates:
            screen.print(f"[answer, {candidate.finish_reason or 'cut'}]", style="bold", markup=False)
            screen.print(printable(_message(candidate.messages[-1].to_json()), {"\n": "\n"}))


def _message(row: dict[str, object]) -> str:
    rest = {name: value for name, value in row.items() if name not in ("role", "content", "tokens")}
    return f"{row['content']}" + (f"\n{orjson.dumps(rest).decode()}" if rest else "")


def _as_json(file: Trace, node: Node) -> dict[str, object]:
    names = ("id", "run", "parent", "kind", "name", "began", "ended", "outcome", "error", "facts", "checks", "feedback")
    row: dict[str, object] = {name: getattr(node, name) for name in names}
    if node.call:
        what, _ = read_request(file.store, node.call.request)
        request = file.store.content(node.call.request)
        reply = read_reply(file.store, node.call.reply, Usage()).candidates if node.call.reply else ()
        row["call"] = {"model": node.call.model, "prompt": node.call.prompt, "usage": node.call.usage, "cost": node.call.cost,
                       "asked": what.to_json(), "sampling": request["sampling"], "answers": [one.to_json() for one in reply]}  # fmt: skip
    return row | {"below": [_as_json(file, one) for one in node.below]}


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _ended(node: Node) -> str:
    return node.error or node.outcome or "did not end"


def _brief(text: str) -> str:
    """The beginning: an endpoint's error may be a page, and `show` has all of it."""
    return text if len(text) <= BRIEF else text[: BRIEF - 1] + "…"


def _seconds(node: Node) -> str:
    return "?" if node.ended is None else f"{node.ended - node.began:.1f}"


def _sums(sums: Total, currency: str) -> tuple[str, str, str]:
    """Calls, tokens and cost; a + where calls are among them of which nobody knows."""
    tokens = sums.usage.prompt_tokens + sums.usage.completion_tokens
    more = "+" if sums.unknown_usage else ""
    cost = "?" if sums.unknown_cost == sums.calls else f"{sums.cost:.4f}{'+' if sums.unknown_cost else ''} {currency}"
    return str(sums.calls), f"{tokens:,}{more}", "" if not sums.calls else cost
