"""myna check: rows scored by checks, personal data masked, people asked, judges compared with people."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column, Table

from myna.checks import Named, named
from myna.checks.names import distinct
from myna.checks.reviews import Answered, Asked, Review, Reviews
from myna.checks.score import Row, Scores, score
from myna.commands.options import printable, spoken
from myna.modeldir import DEFAULT
from myna.records import (
    Candidate,
    Conversation,
    DataError,
    MynaError,
    ProviderError,
    RequestError,
    Unavailable,
    Unjudged,
    jsonl,
)
from myna.records.jsonl import unopened
from myna.records.whole import write_whole
from myna.trace.where import trace_file

app = App(name="check", help="Checks: score rows, mask personal data, answer reviews, compare a judge with people.")
With = Annotated[tuple[str, ...], Parameter(name="--with", negative=())]
SHOWN = 20  # rows that do not pass; --json prints all


def reviews_file() -> Path:
    """reviews.sqlite beside the trace."""
    return trace_file().with_name("reviews.sqlite")


@app.default
def rows(
    file: Path,
    /,
    *,
    checks: With,
    model: str = DEFAULT,
    json: bool = False,
    seconds: float | None = None,
    at_once: int = 4,
) -> None:
    """Score the answers in a file: how many pass, the mean, and about how many there is no verdict. Exit status 1 where one does not pass.

    Parameters
    ----------
    file
        Conversations as JSON lines, {"messages": [{"role": ..., "content": ...}, ...]}; their candidates are looked at, or the answer
        that they end with.
    checks
        A check, with its arguments as in a prompt file: --with pii --with "length: {most: 200}" (docs/checks.md).
    model
        Who judges, where a check asks a model: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN.
    json
        Print every verdict as a JSON line.
    seconds
        How long one check of one row may take.
    at_once
        How many rows are looked at together.
    """
    asked = distinct([_one(text) for text in checks])
    if not (found := [*_answers(file)]):
        raise DataError(f"{file}: has no rows")
    scored = asyncio.run(_score(asked, [row for _, row in found], model, seconds, at_once))
    places = [place for place, _ in found]
    if json:
        _print_json(scored, places)
    else:
        _print(scored, places)
    if any(one.passed < len(one.found) for one in scored.values()):
        sys.exit(1)


@app.command
def mask(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, kinds: str = "", values: Path | None = None
) -> None:
    """Replace personal data by placeholders, and print the text.

    Parameters
    ----------
    text
        The text, @FILE, or - for what comes in.
    kinds
        Only these, with commas between them (email,phone,...).
    values
        Keep what each placeholder stands for in this JSON file; those that are in it already are used again.
    """
    from typing import get_args

    from myna.checks.pii import KINDS, Kind
    from myna.checks.pii import mask as masked_of

    wanted: list[Any] = [one.strip() for one in kinds.split(",")] if kinds else [*KINDS]
    if unknown := [one for one in wanted if one not in get_args(Kind)]:
        raise RequestError(f"{unknown[0]!r} is no kind; these are: {', '.join(KINDS)}.", param="kinds")
    known = _values(values) if values and values.exists() else {}
    masked = masked_of(_text(text), known, wanted)
    if values:
        write_whole(values, orjson.dumps(dict(masked.values), option=orjson.OPT_INDENT_2), 0o600)
    print(spoken(masked.text) if sys.stdout.isatty() else masked.text, end="" if masked.text.endswith("\n") else "\n")


@app.command
def reviews(*, reviews: Path | None = None) -> None:
    """The answers that wait for a person.

    Parameters
    ----------
    reviews
        The file; reviews.sqlite beside the trace if left out.
    """
    waiting = _reviews(reviews).waiting()
    screen = Console(highlight=False, soft_wrap=True)
    for one in waiting:
        screen.print(f"[{one.id}] ", printable(one.question.why), sep="", style="bold", markup=False)
        screen.print(printable(one.question.candidate.text, {"\n": "\n"}))
    print(f"{len(waiting)} wait" + (": myna check review NUMBER approve|reject|edit" if waiting else ""))


@app.command
def review(
    number: int, said: Literal["approve", "reject", "edit"] | None = None, text: str = "", /, *,
    consent: bool = False, reviews: Path | None = None, trace: Path | None = None,
) -> None:  # fmt: skip
    """Show what waits, or answer it. What a person says of an answer is feedback on its call in the trace, too.

    Parameters
    ----------
    number
        The number of the review.
    said
        approve, reject or edit; left out, the review is shown.
    text
        Of an edit: the answer as it should have been. Of a rejection: why.
    consent
        It may become training data.
    reviews
        The file; reviews.sqlite beside the trace if left out.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    queue = _reviews(reviews)
    if said is None:
        _show(queue.review(number))
        return
    found = queue.answer(number, Answered(said, text))
    print(f"review {number}: {said}" + _feedback(found, consent, trace or trace_file()))


@app.command
def calibrate(file: Path, /, *, checks: With, model: str = DEFAULT) -> None:
    """Compare a judge with people: its verdicts will say how often it agrees with them.

    Parameters
    ----------
    file
        Conversations as JSON lines, each with an answer and the `label` that a person gave it.
    checks
        The judge: --with "judge: {rubric: 'Is it right?', labels: [bad, good]}".
    model
        Who judges.
    """
    from myna.checks import calibration
    from myna.checks.judge import Judge
    from myna.provider.connect import connected

    if len(checks) != 1 or _one(checks[0]).name != "judge":
        raise RequestError('calibrate takes one judge: --with "judge: {rubric: ...}".', param="with")
    answers = [*_answers(file)]
    with connected(model) as provider:
        judge = named(checks[0], provider=provider)
        assert isinstance(judge, Judge)
        labels = [_label(row, place, judge.labels) for place, row in answers]
        pairs = asyncio.run(_pairs(judge, [row for _, row in answers], labels))
    found = calibration.calibrate(pairs)
    kept = calibration.write(judge.key, found)
    print(f"{provider.name} {calibration.said(judge.key)}; no verdict about {found.n_failed} more. Kept in {kept}")


async def _score(
    checks: dict[str, Named], answers: list[Row], model: str, seconds: float | None, at_once: int
) -> dict[str, Scores]:
    from myna.provider.connect import connected

    given: dict[str, object] = {"ask": _reviews(None).ask} if any("ask" in one.needs for one in checks.values()) else {}
    if not any("provider" in one.needs for one in checks.values()):
        made = {name: one.make(**given) for name, one in checks.items()}
        return {name: await score(check, answers, at_once=at_once, seconds=seconds) for name, check in made.items()}
    with connected(model) as provider:
        made = {name: one.make(provider=provider, **given) for name, one in checks.items()}
        return {name: await score(check, answers, at_once=at_once, seconds=seconds) for name, check in made.items()}


async def _pairs(judge: Any, answers: list[Row], labels: list[str]) -> list[tuple[str, str | None]]:
    """What people said of each answer and what the judge says, None where it comes to no verdict. Raises what its endpoint raises at every
    one of them."""
    found: list[tuple[str, str | None]] = []
    failures: list[MynaError] = []
    for (conversation, candidate), label in zip(answers, labels, strict=True):
        try:
            said = await judge.label(conversation, candidate)
        except (Unjudged, ProviderError, Unavailable) as e:
            failures += [] if isinstance(e, Unjudged) else [e]
            found.append((label, None))
            continue
        found.append((label, judge.labels[said.index]))
    if failures and len(failures) == len(found):
        raise failures[0]
    return found


def _one(text: str) -> Named:
    import yaml

    try:
        value = yaml.safe_load(text)
        if isinstance(value, dict) and any(isinstance(one, dict) and "otherwise" in one for one in value.values()):
            raise RequestError(
                "--with: rows are scored here and nothing is mended; leave `otherwise` out.", param="with"
            )
        return Named.from_json(value, "--with")
    except yaml.YAMLError as e:
        why = getattr(e, "problem", None) or e
        raise RequestError(f"--with {text[:60]!r}: {why}; put words with signs in quotes.", param="with") from None


def _answers(file: Path) -> Iterator[tuple[str, Row]]:
    """(where it stands, the question and one answer)."""
    for number, row in enumerate(jsonl.read(file, Conversation), start=1):
        if row.candidates:
            for n, candidate in enumerate(row.candidates):
                yield f"{file}:{number}, candidate {n}", (row, candidate)
        elif row.messages and row.messages[-1].role == "assistant":
            talk = Conversation(row.messages[:-1], row.id, row.tools, row.target, meta=row.meta)
            yield f"{file}:{number}", (talk, Candidate(row.messages[-1:]))
        else:
            raise DataError(f"{file}:{number}: there is no answer in it: candidates, or a last turn of the assistant")


def _label(row: Row, place: str, labels: tuple[str, ...]) -> str:
    label = row[0].meta.get("label")
    if label not in labels:
        raise DataError(f"{place}: label: {label!r} is none of the judge's: {', '.join(labels)}")
    return str(label)


def _print(scored: dict[str, Scores], places: list[str]) -> None:
    screen = Console(highlight=False, soft_wrap=True)
    table = Table(
        *(Column(name) for name in ("check", "passed", "of", "mean score", "no verdict")), box=None, header_style="bold"
    )
    for name, one in scored.items():
        mean = "" if one.mean is None else f"{one.mean:.3f}"
        table.add_row(printable(name), str(one.passed), str(one.n), mean, str(one.n_failed) if one.n_failed else "")
    screen.print(table)
    wrong = [
        (place, name, str(found) if isinstance(found, Unjudged) else found.reason)
        for name, one in scored.items() for place, found in zip(places, one.found, strict=True)
        if isinstance(found, Unjudged) or not found.ok
    ]  # fmt: skip
    for place, name, reason in wrong[:SHOWN]:
        screen.print(printable(f"{place}: {name}: {reason}"))
    if len(wrong) > SHOWN:
        screen.print(f"{len(wrong) - SHOWN} more; --json prints all")


def _print_json(scored: dict[str, Scores], places: list[str]) -> None:
    for name, one in scored.items():
        for place, found in zip(places, one.found, strict=True):
            if isinstance(found, Unjudged):
                row: dict[str, Any] = {"unjudged": str(found)}
            else:
                spans = [[span.start, span.end, span.label] for span in found.spans]
                row = {"ok": found.ok, "score": found.score, "reason": found.reason, "spans": spans}
            print(orjson.dumps({"row": place, "check": name, **row}).decode())


def _reviews(file: Path | None) -> Reviews:
    if file and not file.exists():  # one that is named is not made by looking into it
        raise DataError(unopened(file, FileNotFoundError()))
    return Reviews(file or reviews_file())


def _show(found: Review) -> None:
    asked: Asked = found.question
    screen = Console(highlight=False, soft_wrap=True)
    for message in asked.conversation.messages:
        screen.print(f"[{message.role}]", style="bold", markup=False)
        screen.print(printable(message.text, {"\n": "\n"}))
    screen.print("[the answer]", style="bold", markup=False)
    screen.print(printable(asked.candidate.text, {"\n": "\n"}))
    screen.print(printable(f"{asked.question} {asked.why}"))
    screen.print(printable(f"answered: {found.answered.said} {found.answered.text}" if found.answered else "it waits"))


def _feedback(found: Review, consent: bool, trace: Path) -> str:
    """Write it to the trace, where the call is known; what was done, for the screen."""
    if found.question.span is None or found.answered is None or not trace.is_file():
        return ""
    from myna.trace import Trace
    from myna.trace.read import tree

    kept = Trace(trace)
    node = tree(kept.store, found.question.span)
    call = next((one for one in node.below if one.call), node)
    if found.answered.said == "edit":
        kept.feedback(call.id, "edit", found.answered.text, consent=consent)
    else:
        kept.feedback(call.id, "thumb", 1 if found.answered.said == "approve" else -1, consent=consent)
    return f"; feedback on span {call.id}" + (" with consent" if consent else "")


def _text(given: str) -> str:
    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{given}: cannot be read: {e}") from None


def _values(file: Path) -> dict[str, str]:
    try:
        value = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as e:
        raise DataError(f"{file}: {e}") from None
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise DataError(f"{file}: expected what `myna check mask --values` writes")
    return value
