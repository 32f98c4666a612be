"""When a document is from: the forms in which documents say it, and what is not believed."""

import os
from datetime import date
from pathlib import Path

import pytest

from myna.apps.index.dates import TEMPLATES, ZEROS, Dated, day, day_of

TODAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("D:20240305101112+08'00'", "2024-03-05"), ("D:20240305", "2024-03-05"), ("D:202403", "2024-03"), ("D:2024", "2024"),
        ("2024-03-05T10:00:00Z", "2024-03-05"), ("2024-03-05 10:11", "2024-03-05"), ("2024-03", "2024-03"), ("2024", "2024"),
        ("20240305T101010Z", "2024-03-05"), ("2024/3/5", "2024-03-05"), ("2024.3.5", "2024-03-05"), ("2024年3月5日", "2024-03-05"),
        ("２０２４年３月５日 星期二", "2024-03-05"), ("2024年3月", "2024-03"), ("Tue, 05 Mar 2024 10:00:00 +0800", "2024-03-05"),
        ("5 March 2024", "2024-03-05"), ("March 5th, 2024", "2024-03-05"), ("Tuesday, Mar. 5, 2024", "2024-03-05"),
        ("1815-06-18", "1815-06-18"), ("2026-11-24", "2026-11-24"),
    ],
)  # fmt: skip
def test_a_date_is_read_in_the_forms_that_documents_use(said: str, meant: str) -> None:
    assert day(said, TODAY) == meant


@pytest.mark.parametrize(
    "said",
    [
        "", "soon", "03/05/2024", "2024-13-01", "2024-02-30", "2024 was good", "2024-3-5-6", "123456789", "10000-01-01", "2024-03-05; DROP TABLE",
        "0999-12-31", "2026-11-25", "9999-01-01", "Mon, 01 Jan 2099 00:00:00 +0000", "2099年1月1日", *sorted(ZEROS), *sorted(TEMPLATES), "D:19700101000000Z",
        "2024-03-05" * 10**5, "\x00" * 10**6, "9" * 10**6,
    ],
)  # fmt: skip
def test_what_is_no_date_or_a_clock_s_zero_or_the_future_is_not_taken(said: str) -> None:
    assert day(said, TODAY) == ""


def test_a_document_s_word_goes_before_the_oldest_file_s() -> None:
    assert str(Dated.of("2024-03", ["2020-01-01"])) == "as of 2024-03"
    assert str(Dated.of("", ["2021-01-01", "", "2020-01-01"])) == "file of 2020-01-01"
    assert Dated.of("", [""]) is None


@pytest.mark.parametrize("seconds", [1e18, -1e18, float("nan"), float("inf")])
def test_a_time_stamp_that_is_none_gives_no_day(seconds: float) -> None:
    assert day_of(seconds) == ""


def test_a_file_s_time_stamp_gives_its_day(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", (0, 1709632800))  # 5 March 2024, 10:00 UTC
    assert day_of((tmp_path / "a").stat().st_mtime) == "2024-03-05"
