"""A model that was made for it fills in the middle."""

import asyncio
from pathlib import Path

import pytest

from myna.provider import complete
from myna.provider.local import Loading, load
from myna.records import Document, Sampling


@pytest.mark.slow
def test_qwen_coder_fills_in_what_is_missing_and_stops_there(qwen_coder: Path) -> None:
    gap = Document("def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))  # 3\n")
    local = load(str(qwen_coder), Loading(kv_gb=0.1))
    try:
        reply = asyncio.run(complete(local, gap, Sampling(temperature=0, max_tokens=40)))
    finally:
        local.close()
    assert reply.text.strip() == "a + b"
    assert reply.candidates[0].finish_reason == "stop"
