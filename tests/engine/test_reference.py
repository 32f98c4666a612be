"""`--precision reference` answers without anything that could be wrong in the fast ways."""

from pathlib import Path

import pytest

from myna.engine import sample
from myna.engine.engine import Engine, engine_for
from myna.engine.pages import Pages
from myna.engine.runner import PagedRunner, runner_for
from myna.kernels import Program, build
from myna.model import load_model
from myna.modeldir import ModelDir, packed_bytes
from myna.provider.local import Loading, load
from myna.records import Sampling

PROMPT = [1, 4093, 198, 1780, 314, 260, 3575]
SAMPLING = Sampling(temperature=0.7, seed=3, max_tokens=6, logprobs=2, ignore_eos=True)


@pytest.fixture
def nothing_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("the reference took a fast way")

    monkeypatch.setattr(Program, "run", called)
    monkeypatch.setattr(sample, "choose_rows", called)
    monkeypatch.setattr(Pages, "__init__", called)


def answers(engine: Engine) -> list[sample.Choice]:
    return engine.generate([PROMPT], SAMPLING)[0][0]


@pytest.mark.parametrize("level", ["off", ""])
def test_the_reference_is_the_same_with_and_without_native_kernels(
    smollm2: Path, level: str, nothing_fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.VARIABLE, level)
    kept = packed_bytes(smollm2)
    provider = load(str(smollm2), Loading(precision="reference", max_len=64, draft_rows=8))
    engine = provider.loop.engine
    provider.close()
    decoder = load_model(ModelDir.open(smollm2), "reference", 64)
    assert (decoder.precision, decoder.kv_format.kept) == ("float32", "float32")
    assert engine.scheduler.speculator is None
    assert packed_bytes(smollm2) == kept
    said = answers(engine)
    monkeypatch.setenv(build.VARIABLE, "off")
    assert said == answers(engine_for(decoder, kv_tokens=64, runner=runner_for("reference")))


def test_float32_in_pages_says_what_the_reference_says(smollm2: Path) -> None:
    decoder = load_model(ModelDir.open(smollm2), "float32", 64)
    fast, slow = (engine_for(decoder, kv_tokens=64, runner=runner) for runner in (PagedRunner, runner_for("reference")))
    pairs = list(zip(answers(fast), answers(slow), strict=True))
    assert all(a.id == b.id for a, b in pairs)
    assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)
