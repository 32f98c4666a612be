"""Killed and resumed is never stopped, whatever is learned, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from every import CASES, files, flags, last, lines, written

from myna.train.loop import Loop
from myna.train.run import begin, configure, resume

__all__ = ["files"]


class Killed(BaseException):
    """Nothing between here and the test catches it, and nothing is saved."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Loop._update

    def update(self: Loop, number: int, units: float) -> Any:
        if number == step:
            raise Killed
        return usual(self, number, units)

    monkeypatch.setattr(Loop, "_update", update)


USUALLY = ("pretrain", "sft", "dpo", "grpo", "grpo again")  # the others go on by the same means


@pytest.mark.parametrize("case", [c if c in USUALLY else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_every_method_goes_on_as_if_it_had_never_stopped(
    files: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, moments, losses, figures of evaluations, answers; killed in the step after the one that was saved, after an
    evaluation that was not."""
    method, *told = flags(case, files, tmp_path / "whole")
    begin(configure(method, None, told))
    method, *told = flags(case, files, tmp_path / "cut")
    with monkeypatch.context() as patched:
        killed_at(3, patched)
        with pytest.raises(Killed):
            begin(configure(method, None, told))
    assert lines(tmp_path / "cut")[-1]["step"] == 3
    resume(tmp_path / "cut")
    whole, cut = last(tmp_path / "whole"), last(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert written(tmp_path / "whole") == written(tmp_path / "cut")
    assert any(t.any() for name, t in whole.items() if name.endswith("exp_avg"))  # something was learned
