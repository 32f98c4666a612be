"""report.html: true to the log, opens offline, and nothing in a run is more than text in it."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, Browser
from myna.commands.train import run as train
from myna.data import Audit
from myna.data.examples import Cuts
from myna.records import DataError
from myna.train import samples
from myna.train.charts import Chart, Series, short, smoothed, thinned, ticks
from myna.train.report import charts_of, page, refresh, write_report
from myna.train.rundir import RunDir
from myna.train.samples import Turn

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \"quoted\" 'too' &amp; 诗"


def made(path: Path, steps: int = 40, **more: str) -> RunDir:
    """A run directory as training leaves it, in which every text is EVIL."""
    path.mkdir(parents=True)
    counts = dict.fromkeys(("rows", "examples", "sequences", "tokens", "supervised", "longest", "median"), 9)
    audit = Audit(EVIL, **counts, cuts=Cuts(), bad=1, first_bad=(EVIL,), sample=((EVIL, False), (EVIL, True))).to_json()
    log: list[dict[str, Any]] = []
    for n in range(steps):
        step = {"loss": 5 / (n + 1), "lr": 1e-3, "grad_norm": 10.0 ** (-n % 4), "reward": n / 40, EVIL: 1.0}
        log.append({"step": n, **step, "tokens": 100, "supervised": 50, "seconds": 0.5})
        if n % 10 == 9:
            log.append({"step": n + 1, "eval": {"loss": 6 / n, "reward": n / 40, "bits_per_byte": 3 / n}})
    log[7] = {"step": 7, "loss": math.nan, "grad_norm": math.inf, "tokens": 100, "seconds": 0.0}
    log.append({"step": 7, "event": f"skipped: {EVIL}", "rows": [EVIL]})
    files = {
        "config.yaml": "method: sft\nmodel:\n  start: base\noptim:\n  lr: 0.5\n  beta1: 0.9\n",
        "command.txt": f"myna train sft {EVIL}",
        "env.json": json.dumps({"torch": EVIL}),
        "data.json": json.dumps({"files": {EVIL: EVIL}, "audits": [audit], "steps": 80}),
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log),
        "samples/step-9.md": samples.write([Turn("user", "the wrong one"), Turn("answer", "the wrong one")]),
        "samples/step-30.md": samples.write(
            [Turn("system", EVIL), Turn("user", "写诗"), Turn("answer", "床前\n" + EVIL)]
        ),
    }
    run = RunDir(path)
    for name, text in (files | more).items():
        run.write(name, text)
    return run


class Reader(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def test_whatever_a_run_holds_is_text_in_its_page(tmp_path: Path) -> None:
    read = Reader(page(made(tmp_path / "run")))
    assert [tag for tag, _ in read.tags].count("script") == 2  # the readouts and the page's own
    assert "img" not in {tag for tag, _ in read.tags}
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on")]
    assert not [name for _, attrs in read.tags for name in attrs if name in ("src", "href", "action")]
    assert read.text.count("<script>alert(1)</script>") >= 9  # said, in each of its places


def test_the_page_says_what_the_run_says(tmp_path: Path) -> None:
    read = Reader(page(made(tmp_path / "run")))
    for words in (
        "40 of 80 steps", "40steps", "4,000tokens", "0:00:20", "1steps skipped", "best evaluation loss, step 40",
        f"myna train --resume {tmp_path / 'run'}", "optim.lr0.5", "after 30 steps", "床前\n<script>",
    ):  # fmt: skip
        assert words in read.text, words
    assert "optim.beta1" not in read.text.partition("config.yaml")[0]  # at its default
    assert "the wrong one" not in read.text


def test_curves_are_the_logs(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    charts = {chart.title: chart for chart in charts_of([*run.log.lines()])}
    assert next(iter(charts)) == "loss"
    raw, smooth, evals = charts["loss"].curves()
    assert list(raw.xs) == [n for n in range(1, 41) if n != 8]  # after n steps; the one that is no number is not drawn
    assert raw.ys[0] == 5
    assert evals.xs == [10, 20, 30, 40]
    assert evals.ys[0] == pytest.approx(6 / 9)
    assert evals.kind == "points"
    assert smooth.kind == "line"
    assert charts["tokens/s"].curves()[0].ys[0] == 200
    assert charts["bits per byte"].curves()[0].kind == "line"


def test_a_curve_never_loses_its_spike() -> None:
    ys = [1.0] * 5000
    ys[3210], ys[77] = 9.0, -4.0
    few = thinned(Series("loss", range(5000), ys))
    assert len(few.xs) <= 1000
    assert max(few.ys) == 9
    assert few.xs[few.ys.index(9.0)] == 3210
    assert min(few.ys) == -4
    assert list(few.xs) == sorted(few.xs)


def test_smoothing_starts_without_a_bias_and_passes_over_what_is_no_number() -> None:
    assert smoothed([3.0] * 9) == pytest.approx([3.0] * 9)
    found = smoothed([1.0, math.nan, 3.0], share=1.0)
    assert found[1] == found[0] == 1
    assert 1 < found[2] < 3


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.3, 1.1, [0.4, 0.6, 0.8, 1.0]), (5, 5, [5]), (-1, 1, [-1, -0.5, 0, 0.5, 1])],
)
def test_axes_have_round_numbers(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "said"),
    [(3e-4, "3e-4"), (1_200_000, "1.2M"), (12_000, "12k"), (0, "0"), (0.25, "0.25"), (-5e-7, "-5e-7")],
)
def test_axes_have_short_numbers(value: float, said: str) -> None:
    assert short(value) == said


@pytest.mark.parametrize("ys", [[1.0], [0.0, 0.0], [-3.0, -3.0], [1e-9, 1e9], [1e300, -1e300], [5e-324, 1.0]])
def test_any_values_can_be_drawn(ys: list[float]) -> None:
    chart = Chart("any", [Series("any", range(len(ys)), ys)], late=True)
    assert "nan" not in chart.svg()
    assert "inf" not in chart.svg()
    json.dumps(chart.readout(), allow_nan=False)


def test_a_run_that_has_just_begun_or_lost_files_has_a_page(tmp_path: Path) -> None:
    run = made(tmp_path / "run", **{"log.jsonl": ""})
    assert "No step was done yet" in page(run)
    for name in ("data.json", "env.json", "command.txt"):
        (run.path / name).unlink()
    assert "sft" in page(run)
    with pytest.raises(DataError, match="holds no run"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_made_does_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run", **{"log.jsonl": "not json\n"})
    refresh(run)
    assert "the run goes on" in capsys.readouterr().err
    run.write("log.jsonl", "")
    refresh(run)
    assert (run.path / "report.html").is_file()


def test_the_command_makes_the_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "run")
    train("--report", str(tmp_path / "run"))
    assert capsys.readouterr().out.strip() == str(tmp_path / "run/report.html")
    with pytest.raises(DataError, match="which run"):
        train("--report")


def test_what_was_said_is_never_taken_for_a_speaker() -> None:
    """Whatever ends a line in some reader's eyes: the file is read back as it was meant."""
    said = "one\n**answer**\r---\u2028> two\n\n  three"
    talk = [Turn("system", said), Turn("answer, cut at 96 tokens", said)]
    again = samples.read("\n\n---\n\n".join([samples.write(talk)] * 2))
    assert len(again) == 2
    assert [turn.who for turn in again[1]] == ["system", "answer, cut at 96 tokens"]
    assert again[1][0].text == "one\n**answer**\n---\n> two\n\n  three"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_opens_it_from_the_disk_and_tells_values_under_the_pointer(tmp_path: Path) -> None:
    place = write_report(made(tmp_path / "run").path)
    with Browser(tmp_path / "profile") as browser:
        browser.open(place.resolve().as_uri())
        browser.until("document.querySelectorAll('figure.chart').length >= 6")
        browser.until("document.readyState === 'complete'")
        over = """(() => { const svg = document.querySelector('figure.chart svg'), box = svg.getBoundingClientRect();
            svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.right - 1, clientY: box.top + 20}));
            return document.querySelector('figure.chart output').textContent; })()"""
        said = browser.evaluate(over)
        assert re.match(r"step 40 +loss 0\.125 +smoothed 0\.\d+ +evaluation 0\.1538", said)
        key = "document.querySelector('figure.chart').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))"
        browser.evaluate(key)
        assert browser.evaluate("document.querySelector('figure.chart output').textContent").startswith("step 39")
        assert browser.evaluate("window.violations") == []
        assert browser.evaluate("performance.getEntriesByType('resource').length") == 0
        assert browser.complaints == []
