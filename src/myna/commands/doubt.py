"""myna doubt ask, quote, claims, verify, measure, fit: is an answer to be believed?"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
from cyclopts import App, Parameter

from myna.commands.options import spoken
from myna.commands.trace import TraceFile, opened
from myna.modeldir import DEFAULT
from myna.records import DataError, RequestError
from myna.records.jsonl import unopened
from myna.records.lock import locked

if TYPE_CHECKING:
    from myna.apps.hallucination.labelled import Labelled
    from myna.provider import Provider

app = App(name="doubt", help="Is an answer to be believed? Agreement, evidence, and when not to answer.")
Texts = Annotated[tuple[Path, ...], Parameter(name=("--evidence", "-e"), negative=())]
NAMED = 80  # characters of a question that name the run


@app.command
def ask(
    question: str,
    /,
    *,
    evidence: Path | None = None,
    samples: int = 5,
    threshold: Path | None = None,
    model: str = DEFAULT,
    trace: TraceFile = None,
) -> None:
    """Ask several times, and say how far the answers agree. Exit status 1 where the threshold says not to answer.

    Parameters
    ----------
    question
        A question with a short answer.
    evidence
        A text file in which the answer stands.
    samples
        How many answers; one request where the endpoint gives several.
    threshold
        A file that `myna doubt fit` made.
    model
        Who answers: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.hallucination import Threshold, sample
    from myna.apps.hallucination import question as asking
    from myna.apps.hallucination.samples import SIGNALS

    limit = Threshold.load(threshold) if threshold else None
    what = asking(question, _text(evidence) if evidence else None)
    with _connected(model, trace, "ask", question) as provider:
        found = asyncio.run(sample(provider, what, samples))
    for group in found.groups:
        print(f"{len(group)} of {found.asked}: {spoken(found.samples[group[0]].text)}")
    for outcome in found.outcomes.keys() - {"answer"}:
        print(f"{found.outcomes[outcome]} of {found.asked}: no answer ({outcome})")
    for signal in SIGNALS:
        sure = found.confidence(signal)
        print(f"  {signal:10}{'unknown' if sure is None else f'{sure:.3f}'}")
    if found.spoken and found.spoken.signals.why:
        print(f"note: {found.spoken.signals.why}")
    if found.answer is None or (limit and not limit.answers(found.confidence(limit.signal))):
        print("no answer" + (f": {limit.signal} is not above {limit.above}" if limit and found.answer else ""))
        sys.exit(1)
    promise = f"  (wrong at most {limit.bound:.1%} of the time, with probability {1 - limit.delta:g})" if limit else ""
    print(f"answer: {spoken(found.answer)}{promise}")


@app.command
def quote(question: str, /, *, evidence: Texts, model: str = DEFAULT, trace: TraceFile = None) -> None:
    """Answer from texts, with the words that the answer rests on first. Exit status 1 where they do not say.

    Parameters
    ----------
    question
        A question.
    evidence
        A text file; may be given several times.
    model
        Who answers.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.hallucination import quotes

    texts = [_text(path) for path in evidence]
    with _connected(model, trace, "quote", question) as provider:
        found = asyncio.run(quotes.answer(provider, question, texts))
    for one in found.quotes:
        print(f"{evidence[one.source]}:{one.start}-{one.end}: {spoken(one.text)}")
    for text in found.refused:
        print(f"refused, in no text: {spoken(text)}")
    if found.answer is None:
        print("no answer: " + ("the texts do not say" if found.outcome == "none" else "no quote is in the texts"))
        sys.exit(1)
    print(f"answer: {spoken(found.answer)}")


@app.command
def claims(text: Path, /, *, evidence: Texts, model: str = DEFAULT, trace: TraceFile = None) -> None:
    """A text, sentence by sentence, each with the words that support it. Exit status 1 where one has none.

    Parameters
    ----------
    text
        A text file.
    evidence
        A text file that it is compared with; may be given several times.
    model
        Who compares.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.hallucination import table

    texts = [_text(path) for path in evidence]
    with _connected(model, trace, "claims", text.name) as provider:
        rows = asyncio.run(table(provider, _text(text), texts))
    for row in rows:
        print(f"{row.label:12} {spoken(row.claim.text)}{f'  ({spoken(row.why)})' if row.why else ''}")
        if row.quote:
            one = row.quote
            print(f"{'':12} {evidence[one.source]}:{one.start}-{one.end}: {spoken(one.text)}")
    if any(row.label != "supported" for row in rows):
        sys.exit(1)


@app.command
def verify(
    question: str,
    /,
    *,
    evidence: Path | None = None,
    questions: int = 3,
    model: str = DEFAULT,
    trace: TraceFile = None,
) -> None:
    """Draft an answer, question it, and answer again (chain of verification). Measure first whether it helps your model. Exit status 1 where
    nothing is said.

    Parameters
    ----------
    question
        A question with a short answer.
    evidence
        A text file in which the answer stands.
    questions
        How many questions to the draft, at most.
    model
        Who answers.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.hallucination.verification import verify as chain

    context = _text(evidence) if evidence else None
    with _connected(model, trace, "verify", question) as provider:
        found = asyncio.run(chain(provider, question, context, questions=questions))
    if found.outcome == "empty":
        print("no answer: the model said nothing")
        sys.exit(1)
    print(f"draft: {spoken(found.draft)}")
    for asked, said in found.checks:
        print(f"  {spoken(asked)}  {spoken(said)}")
    print(f"answer ({found.outcome}, {found.calls} calls): {spoken(found.answer)}")


@app.command
def measure(questions: Path, out: Path, /, *, samples: int = 5, model: str = DEFAULT, trace: TraceFile = None) -> None:
    """Ask questions whose answers are known, and keep what was said and how sure it was. Goes on where it stopped.

    Parameters
    ----------
    questions
        JSON lines: {"question", "answers": [...], "context"?}.
    out
        The file of lines that `myna doubt fit` reads.
    samples
        How many answers of each.
    model
        Who answers.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.hallucination import labelled

    asked = list(labelled.read(questions))
    with locked(out.with_name(f"{out.name}.lock"), f"a measurement into {out}", DataError):
        done = _measured(asked, questions, out, samples, model, trace)
    print(f"{sum(bool(one.right) for one in done)} of {len(done)} right: {out}")


def _measured(
    asked: "list[Labelled]", questions: Path, out: Path, samples: int, model: str, trace: Path | None
) -> "list[Labelled]":
    from myna.apps.hallucination import labelled

    done = labelled.begun(out)
    if [one.question for one in done] != [one.question for one in asked[: len(done)]]:
        raise DataError(f"{out} has other questions than {questions} begins with; name a new file.")

    async def each(provider: "Provider") -> None:
        for one in asked[len(done) :]:
            done.append(await labelled.ask(provider, one, samples))
            try:
                with out.open("ab") as file:
                    file.write(orjson.dumps(done[-1].to_json()) + b"\n")
            except OSError as e:
                raise DataError(f"{out} cannot be written: {e.strerror or e}. Run it again, and it goes on.") from None

    with _connected(model, trace, "measure", questions.name) as provider:
        asyncio.run(each(provider))
    return done


@app.command
def fit(
    rows: Path,
    /,
    *,
    risk: float,
    signal: str = "agreement",
    delta: float = 0.05,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """The threshold above which wrong answers are rare enough, and the curve that it is a point of.

    Parameters
    ----------
    rows
        What `myna doubt measure` wrote.
    risk
        The share of answers that may be wrong.
    signal
        agreement, semantic, weighted, mean, least or entropy.
    delta
        The chance that the promise fails.
    out
        Where the threshold is kept, for `myna doubt ask --threshold`.
    plot
        Draw the curve: a .png, .svg or .json (Vega-Lite) file.
    """
    from myna.apps.hallucination import labelled, threshold
    from myna.apps.hallucination.curve import curve
    from myna.apps.hallucination.draw import draw, specification

    if clash := next((one for one in (out, plot) if one and one.resolve() == rows.resolve()), None):
        raise RequestError(f"{clash} holds the rows, and would be lost; name another file.", param="out")
    found = list(labelled.read(rows))
    sure, right = _told(found, rows, signal)
    known = [(c, good) for c, good in zip(sure, right, strict=True) if c is not None]
    curves = {signal: curve([c for c, _ in known], [good for _, good in known])} if known else {}
    try:
        best = threshold.fit(sure, right, risk=risk, delta=delta, signal=signal)
    except DataError:
        if plot is not None:
            draw(specification(curves), plot)
        raise
    where = "known" if best.above is None else f"above {best.above:g}"
    print(f"answer where {signal} is {where}: {best.covered} of {best.rows}, {best.wrong} wrong")
    print(f"of questions like these wrong at most {best.bound:.1%}, with probability {1 - delta:g}")
    if plot is not None:
        draw(specification(curves, best), plot)
    if out is not None:
        best.save(out)


def _told(found: "list[Labelled]", rows: Path, signal: str) -> tuple[list[float | None], list[bool]]:
    """What each signal is worth, printed; and the one that was asked for, with which answers are right."""
    from myna.apps.hallucination.curve import aurc, auroc
    from myna.apps.hallucination.samples import SIGNALS

    if signal not in SIGNALS:
        raise DataError(f"{signal!r} is no signal; these are: {', '.join(SIGNALS)}.")
    right = [one.right for one in found if one.right is not None]
    if len(right) < len(found) or not found:
        raise DataError(
            f"{rows}: {len(right)} of {len(found)} rows say whether they are right; `myna doubt measure` writes such rows."
        )
    for name in SIGNALS:
        known = [(c, bool(one.right)) for one in found if (c := one.confidence.get(name)) is not None]
        sure, good = [c for c, _ in known], [label for _, label in known]
        unknown = f"  unknown in {len(found) - len(known)}" if len(known) < len(found) else ""
        area = auroc(sure, good) if known else None
        figures = f"AUROC {'-' if area is None else f'{area:.3f}'}  AURC {aurc(sure, good):.3f}" if known else ""
        print(f"{name:10} {figures}{unknown}")
    print(f"{'always':10} {1 - sum(right) / len(right):.3f} wrong")
    return [one.confidence.get(signal) for one in found], right


@contextmanager
def _connected(model: str, trace: Path | None, verb: str, name: str) -> "Iterator[Provider]":
    """Who answers, recorded as one run."""
    from myna.provider.connect import connected
    from myna.provider.traced import Traced

    kept = opened(trace, new=True)
    with connected(model) as provider, kept.span("doubt", f"{verb} {name[:NAMED]}"):
        yield Traced(provider, kept)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as e:
        raise DataError(unopened(path, e)) from None
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read as text: {e}") from None
