"""Fine-tuning in full takes more memory than LoRA, and LoRA more than QLoRA: measured, in processes of their own."""

from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_full_takes_more_than_lora_and_lora_more_than_qlora(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from train_memory import measure

    peaks = [measure(str(smollm2), kind)["peak"] for kind in ("full", "lora", "qlora, stored", "qlora, nf4")]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.7 * peaks[0]
