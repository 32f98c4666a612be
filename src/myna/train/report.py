"""report.html: a run as one page. It opens without a network, asks nobody for anything, and runs no script but its own.

Made from the run directory alone, so it can be made again at any time: myna train --report RUN.
"""

import base64
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from myna.records import DataError
from myna.train.charts import Chart, Series, smoothed
from myna.train.rundir import RunDir
from myna.train.samples import ANSWERS, read

Json = dict[str, Any]
NAME = "report.html"
MOST_EVENTS = 50  # named; the rest are counted
# Figures that stand beside another on one chart, and what is said of those whose name does not say it.
TOGETHER = {"rejected": "chosen"}
ABOUT = {
    "grad_norm": "before clipping",
    "tokens/s": "tokens of a step by its time, evaluations and saving left out",
    "bits_per_byte": "the same question to every tokenizer: lower is better",
    "reward": "mean score of the answers",
    "margin": "by how much the chosen answer is likelier than the rejected",
    "accuracy": "share of pairs in which the chosen answer wins",
    "chosen": "log-probability of the chosen and the rejected answers",
    "kl": "how far the model is from where it started, in nats",
    "spread": "share of answers whose group was not all alike: the others teach nothing",
    "length": "tokens of an answer",
    "entropy": "of what is drawn, in nats a token",
    "clipped": "share of tokens whose ratio was clipped",
    "sampler_gap": "between the sampler's log-probabilities and the trainer's, at a round's first step",
}
TITLES = {"lr": "learning rate", "grad_norm": "norm of the gradient"}
UNDRAWN = {"step", "tokens", "supervised", "seconds", "bytes_per_token"}


def write_report(path: str | Path) -> Path:
    """Makes the page of a run. Raises DataError if there is none."""
    run = RunDir.open(path)
    run.write(NAME, page(run))
    return run.path / NAME


def refresh(run: RunDir) -> None:
    """write_report for a run that goes on: a page to look at is not worth a run."""
    try:
        write_report(run.path)
    except Exception as e:
        print(f"{run.path / NAME} could not be written, and the run goes on: {type(e).__name__}: {e}", file=sys.stderr)


def page(run: RunDir) -> str:
    """The HTML. Whatever the run holds is text in it: escaped, and no script runs but the one whose hash the page names."""
    log = [*run.log.lines()]
    charts = [chart for chart in charts_of(log) if chart.curves()]
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = [
        _head(run, log),
        _curves(charts),
        _events(log),
        _samples(run),
        _data(_known(run, "data.json")),
        _how(run),
    ]
    readouts = json.dumps([chart.readout() for chart in charts], allow_nan=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">\n"
        f"<title>{escape(run.path.resolve().name)}</title>\n<style>\n{style}</style>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f'\n</main>\n<script type="application/json" id="charts">{readouts}</script>\n<script>{script}</script>\n</html>\n'
    )


def charts_of(log: Sequence[Json]) -> list[Chart]:
    """Loss first and wide, then every figure of the log, evaluations beside training."""
    trained, evaluated = _by_name(_steps(log)), _by_name(_evals(log))
    if "tokens" in trained and "seconds" in trained:
        pairs = zip(trained["tokens"][1], trained["seconds"][1], strict=True)
        trained["tokens/s"] = trained["tokens"][0], [tokens / max(seconds, 1e-9) for tokens, seconds in pairs]
    names = dict.fromkeys(["loss", *(n for n in (*trained, *evaluated) if n not in UNDRAWN)])
    found = []
    for name in names:
        if name in TOGETHER and TOGETHER[name] in names:
            continue
        shown = [name, *(other for other, beside in TOGETHER.items() if beside == name and other in names)]
        series = [
            one
            for n, other in enumerate(shown)
            for one in _series(other, 2 * n, trained, evaluated, many=len(shown) > 1)
        ]
        is_loss = name == "loss"
        found.append(Chart(_title(name), series, ABOUT.get(name, ""), wide=is_loss, late=is_loss))
    return found


Values = dict[str, tuple[list[float], list[float]]]  # name -> steps, values


def _series(name: str, colour: int, trained: Values, evaluated: Values, many: bool) -> Iterator[Series]:
    label = _title(name)
    if name in trained:
        xs, ys = trained[name]
        if name == "lr":
            yield Series(label, xs, ys, "line", colour)
        else:
            if not many:
                yield Series(label, xs, ys, "faint", colour)
            yield Series(label if many else "smoothed", xs, smoothed(ys), "line", colour)
    if name in evaluated:
        told = f"{label}, evaluation" if many else "evaluation"
        yield Series(told, *evaluated[name], "points" if name in trained else "line", colour + 1)


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def _steps(log: Iterable[Json]) -> Iterator[Json]:
    """Training steps; a line counts from 1, as in "after n steps"."""
    return ({**line, "step": line["step"] + 1} for line in log if "loss" in line)


def _evals(log: Iterable[Json]) -> Iterator[Json]:
    return ({**line["eval"], "step": line["step"]} for line in log if isinstance(line.get("eval"), dict))


def _by_name(lines: Iterable[Json]) -> Values:
    found: Values = {}
    for line in lines:
        for name, value in line.items():
            if isinstance(value, int | float):
                xs, ys = found.setdefault(name, ([], []))
                xs.append(line["step"])
                ys.append(float(value))
    return found


def _head(run: RunDir, log: list[Json]) -> str:
    steps, evals = [*_steps(log)], [*_evals(log)]
    config = config_of(run)
    total = _known(run, "data.json").get("steps")
    done = steps[-1]["step"] if steps else 0
    whole = (run.path / "model").is_dir()
    made = _known(run, "model/lineage.json").get("step", done)
    chosen = "" if made == done else f"; the model is that after step {made:,}"
    state = (
        f"finished{chosen}"
        if whole
        else f"{done:,} of {total:,} steps"
        if isinstance(total, int)
        else f"{done:,} steps"
    )
    seconds = sum(line.get("seconds", 0.0) for line in steps)
    tokens = sum(line.get("tokens", 0) for line in steps)
    tiles = [(f"{done:,}", "steps"), (f"{tokens:,}", "tokens"), (f"{timedelta(seconds=round(seconds))}", "of steps")]
    if seconds:
        tiles.append((f"{tokens / seconds:,.0f}", "tokens a second"))
    if steps:
        last = smoothed([line["loss"] for line in steps])[-1]
        tiles.append((f"{last:.4g}", "loss at the end, smoothed"))
    for name in ("loss", *(n for n in ("bits_per_byte", "accuracy", "reward") if evals and n in evals[-1])):
        if found := [e for e in evals if math.isfinite(e.get(name, math.nan))]:
            best = (min if name in ("loss", "bits_per_byte") else max)(found, key=lambda e: e[name])
            tiles.append((f"{best[name]:.4g}", f"best evaluation {name.replace('_', ' ')}, step {best['step']:,}"))
    if skipped := sum("skipped" in str(line.get("event", "")) for line in log):
        tiles.append((f"{skipped:,}", "steps skipped"))
    model = config.get("model", {})
    began = f"from {model['start']}" if model.get("start") else f"a new model of {model.get('depth')} layers"
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles
    )
    return (
        f'<header><h1>{escape(run.path.resolve().name)}</h1><span class="state">{escape(state)}</span></header>\n'
        f'<p class="dim">{escape(str(config.get("method", "")))}, {escape(began)}</p>\n<div class="tiles">{shown}</div>'
    )


def _curves(charts: list[Chart]) -> str:
    if not charts:
        return '<p class="dim">No step was done yet.</p>'
    figures = []
    for chart in charts:
        named = [one for one in chart.curves() if one.kind != "faint"]
        marks = [f'<span class="key c{one.colour} {one.kind}">{escape(one.name)}</span>' for one in named]
        keys = "".join(marks) if len(marks) > 1 else ""
        figures.append(
            f'<figure class="chart{" wide" if chart.wide else ""}" tabindex="0"><figcaption><h3>{escape(chart.title)}</h3>'
            f'<span class="about">{escape(chart.about)}</span>{keys if len(named) > 1 else ""}</figcaption>{chart.svg()}<output></output></figure>'
        )
    return '<h2>Curves</h2>\n<div class="charts">' + "\n".join(figures) + "</div>"


def _events(log: list[Json]) -> str:
    """What happened beside training: skipped steps, what a resume went back to."""
    found = [line for line in log if "event" in line]
    if not found:
        return ""
    rows = "".join(
        f'<tr><td class="n">{line["step"]}</td><td>{escape(str(line["event"]))}</td>'
        f"<td><code>{escape(', '.join(map(str, line.get('rows', [])[:8])))}</code></td></tr>"
        for line in found[:MOST_EVENTS]
    )
    more = f"<p>and {len(found) - MOST_EVENTS} more in log.jsonl</p>" if len(found) > MOST_EVENTS else ""
    return (
        f'<h2>Events</h2>\n<div class="card"><table><tr><th class="n">step</th><th>what</th><th>rows</th></tr>{rows}'
        f"</table>{more}</div>"
    )


def _samples(run: RunDir) -> str:
    """What the model answered at the last evaluation."""
    made = {int(file.stem[5:]): file for file in (run.path / "samples").glob("step-*.md") if file.stem[5:].isdigit()}
    if not made:
        return ""
    step = max(made)
    talks = read(made[step].read_text(encoding="utf-8", errors="replace"))
    cards = (
        "".join(
            f'<div class="turn{" answer" if turn.who.startswith(ANSWERS) else ""}"><b>{escape(turn.who)}</b>'
            f"<div>{escape(turn.text)}</div></div>"
            for turn in talk
        )
        for talk in talks
    )
    shown = "".join(f'<div class="card">{card}</div>' for card in cards)
    return f'<h2>What it answers <span class="dim">after {step:,} steps</span></h2>\n<div class="talks">{shown}</div>'


def _data(known: Json) -> str:
    audits = known.get("audits") or []
    if not audits and not known.get("files"):
        return ""
    return "<h2>Data</h2>\n" + (_table(audits) if audits else "") + _examples(audits) + _files(known.get("files", {}))


def _table(audits: list[Json]) -> str:
    columns = ("rows", "examples", "tokens", "supervised", "share", "median", "longest", "exact", "near")
    titles = {"supervised": "learned", "exact": "copies", "near": "near copies"}
    rows = []
    for audit in audits:
        share = audit.get("supervised", 0) / max(audit.get("tokens", 0), 1)
        values = (f"{share:.1%}" if name == "share" else f"{audit.get(name, 0):,}" for name in columns)
        rows.append(
            f"<tr><td>{escape(str(audit.get('name')))}</td>"
            + "".join(f'<td class="n">{v}</td>' for v in values)
            + "</tr>"
        )
    heads = "".join(f'<th class="n">{titles.get(name, name)}</th>' for name in columns)
    notes = "".join(f"<p>{escape(note)}</p>" for audit in audits for note in _notes(audit))
    return f'<div class="card"><table><tr><th>source</th>{heads}</tr>{"".join(rows)}</table>{notes}</div>'


def _notes(audit: Json) -> list[str]:
    from myna.data import Audit

    try:
        notes = Audit.from_json(audit).notes()
    except (KeyError, TypeError, ValueError):  # an audit of another version
        return []
    return [f"{audit['name']}: {note}" for note in notes]


def _examples(audits: list[Json]) -> str:
    """A row of each source as the model sees it."""
    return "".join(
        f'<div class="card"><h3>A row of {escape(str(audit["name"]))} as the model sees it; it learns what is marked</h3>'
        '<p class="text">'
        + "".join(
            f"<mark>{escape(text)}</mark>" if learned else f"<span>{escape(text)}</span>" for text, learned in sample
        )
        + "</p></div>"
        for audit in audits
        if (sample := audit.get("sample"))
    )


def _files(found: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(str(h))}</code></td></tr>" for name, h in found.items()
    )
    return (
        f"<details><summary>{len(found)} files and their hashes</summary><table>{rows}</table></details>"
        if found
        else ""
    )


def _how(run: RunDir) -> str:
    """How it was started, and how to go on."""
    command = _text(run, "command.txt").strip()
    env = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in _known(run, "env.json").items()
        if value is not None
    )
    set_keys = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(said(value))}</td></tr>" for key, value in chosen(run).items()
    )
    whole = (run.path / "model").is_dir()
    then = f"myna chat {run.path / 'model'}" if whole else f"myna train --resume {run.path}"
    return (
        f'<h2>How it was started</h2>\n<div class="card"><pre>{escape(command)}</pre></div>\n'
        f"<p>{'To talk to it' if whole else 'To go on'}: <code>{escape(then)}</code></p>\n"
        f'<div class="card"><h3>Keys that are not at their default</h3><table>{set_keys}</table></div>\n'
        f"<details><summary>all keys: config.yaml</summary><pre>{escape(_text(run, 'config.yaml'))}</pre></details>\n"
        f"<details><summary>machine and versions</summary><table>{env}</table></details>"
    )


def config_of(run: RunDir) -> Json:
    """config.yaml as it is. Raises DataError if it cannot be read."""
    try:
        found = yaml.safe_load(_text(run, "config.yaml"))
    except yaml.YAMLError as e:
        raise DataError(f"{run.path / 'config.yaml'}: cannot be read as YAML: {e}") from None
    return found if isinstance(found, dict) else {}


def chosen(run: RunDir) -> dict[str, Any]:
    """ "section.key" -> value, where it is not what the method has by itself."""
    from myna.train.method import find
    from myna.train.options import plain, read_config

    config = config_of(run)
    method = str(config.pop("method", ""))
    try:
        module = find(method)
        usual = plain(read_config(method, module.Options, module.DEFAULTS))
    except DataError:  # a method of another version
        usual = {}
    return {
        f"{section}.{key}": value
        for section, keys in config.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
        if usual.get(section, {}).get(key) != value
    }


def said(value: object) -> str:
    """A value as a flag would have it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _known(run: RunDir, name: str) -> Json:
    try:
        found = run.read_json(name)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(run: RunDir, name: str) -> str:
    file = run.path / name
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


@cache
def _asset(name: str) -> str:
    return (files("myna.train") / "page" / name).read_text(encoding="utf-8")
