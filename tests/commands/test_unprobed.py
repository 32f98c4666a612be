"""Whoever asks a URL that nobody probed is told so, once, and not in the answer."""

import pytest

from myna.commands.options import hint
from myna.provider import Scripted
from myna.provider.http import Http
from myna.provider.powers import Powers


def test_a_url_that_nobody_probed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    where = "http://127.0.0.1:9/v1#m"
    hint(Http("http://127.0.0.1:9/v1", "m"), where)
    out, err = capsys.readouterr()
    assert (out, err.count(f"myna probe {where}")) == ("", 1)


def test_what_was_probed_or_needs_no_probe_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    hint(Http("http://127.0.0.1:9/v1", "m", powers=Powers(tried=1.0)), "u")
    hint(Scripted([]), "script:x")
    assert capsys.readouterr() == ("", "")
