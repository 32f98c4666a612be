"""The same request gives the same bytes, whatever else the server is doing: its weights are packed, so its sums are exact."""

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Live

from myna.provider.local import Loading, load
from myna.serve import create_app

WORDS = "write tell explain why how the a sky river code sum list poem 天空 为什么 写 一首 诗 def return 7 42 ?".split()
CHANGING = re.compile(rb'"(?:id|request_id)":"[^"]*"|"created":\d+|"cached_tokens":\d+')  # says nothing of the answer


def bodies(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Mixed requests: chat and completions, greedy and seeded, streams and wholes, candidates, penalties, log-probabilities."""
    rng = random.Random(4)
    found: list[tuple[str, dict[str, Any]]] = []
    for i in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.choice((3, 10, 40, 120))))
        body: dict[str, Any] = {"max_tokens": rng.randrange(2, 20), "seed": i, "temperature": rng.choice((0, 0.7, 1.5))}
        body |= rng.choice(
            ({}, {"n": 3}, {"top_p": 0.8, "top_k": 20}, {"frequency_penalty": 0.5}, {"stop": ["e", "。"]})
        )
        body |= {"stream": True} if rng.random() < 0.5 else {}
        if rng.random() < 0.6:
            logprobs = {"logprobs": True, "top_logprobs": 3} if rng.random() < 0.5 else {}
            found.append(("chat/completions", body | logprobs | {"messages": [{"role": "user", "content": text}]}))
        else:
            found.append(("completions", body | {"prompt": text, "logprobs": 2}))
    return found


def settled(content: bytes) -> bytes:
    """Without ids and times. The events of a stream by candidate, in order: whose chunk comes first depends on the moment."""
    events = CHANGING.sub(b"", content).split(b"\n\n")
    return b"\n\n".join(sorted(events, key=lambda event: re.findall(rb'"index":\d+', event)[:1]))


@pytest.mark.slow
def test_fifty_mixed_requests_at_once_answer_byte_for_byte_as_each_alone(smollm2: Path) -> None:
    provider = load(str(smollm2), Loading(kv_gb=0.05, max_running=16), name="smollm2-135m")
    asked = bodies(50)
    try:
        with Live(create_app(provider)) as live, httpx.Client(base_url=f"{live.url}/v1/", timeout=300) as client:

            def ask(one: tuple[str, dict[str, Any]]) -> bytes:
                answer = client.post(one[0], json=one[1])
                assert answer.status_code == 200, answer.text
                return settled(answer.content)

            alone = [ask(one) for one in asked]
            for order in (asked, asked[::-1], random.Random(1).sample(asked, 50)):
                with ThreadPoolExecutor(50) as pool:
                    together = dict(zip(map(json.dumps, order), pool.map(ask, order), strict=True))
                wrong = [i for i, one in enumerate(asked) if together[json.dumps(one)] != alone[i]]
                assert wrong == []
    finally:
        provider.close()
