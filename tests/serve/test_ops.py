"""What an operator sees: life, readiness, counts that add up, and a log that tells nobody's secrets."""

import json
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import httpx
import pytest
from live_server import Live, eventually
from prometheus_client.parser import text_string_to_metric_families

from myna.provider import Scripted
from myna.provider.replay import replay
from myna.records import MynaError, ProviderError, RequestError
from myna.serve import App, Guard, Keys, Limits, Loadable, key_of, open_desk, serve
from myna.serve.keys import new_key
from myna.serve.logs import JsonLines
from myna.serve.run import _bind

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "the secret word is Xyzzy"}]}


def post(live: Live, **more: Any) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/chat/completions", json=CHAT | more, timeout=20)


def metrics(live: Live) -> dict[tuple[str, str], float]:
    """(name, label values) -> value."""
    text = httpx.get(f"{live.url}/metrics").text
    return {
        (sample.name, ",".join(v for k, v in sorted(sample.labels.items()) if k != "model_name")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_was_asked_is_what_succeeded_failed_was_refused_or_was_left(live: Start) -> None:
    script = [
        "one two",
        RequestError("no"),
        ProviderError("broken"),
        ("half", ProviderError("broken")),
        "word " * 9_999,
    ]
    server = live(Scripted(script, delay=0.001))
    for _ in range(4):
        post(server)
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        next(response.iter_lines())
    eventually(lambda: server.app.desk.active == 0)
    counts = metrics(server)
    assert counts["myna:requests_total", ""] == 5
    assert counts["myna:request_success_total", "stop"] == 1
    assert counts["myna:request_refused_total", ""] == 1
    assert counts["myna:request_failure_total", ""] == 2
    assert counts["myna:num_aborted_requests_total", ""] == 1
    assert counts["myna:num_requests_waiting", ""] == counts["myna:num_requests_running", ""] == 0


def test_who_is_sent_away_from_a_full_line_is_counted_as_asked_and_as_refused(live: Start) -> None:
    server = live(Scripted(cycle(["ok"]), delay=0.05), limits=Limits(max_queue=2))
    with ThreadPoolExecutor(12) as pool:
        found = [*pool.map(lambda _: post(server).status_code, range(24))]
    counts = metrics(server)
    assert {*found} == {200, 429}
    assert counts["myna:requests_total", ""] == 24
    assert counts["myna:request_refused_total", ""] == found.count(429)
    assert counts["myna:request_success_total", "stop"] == found.count(200)


def test_tokens_and_times_are_counted(live: Start) -> None:
    server = live(Scripted(["abcdefgh"] * 3))
    for _ in range(3):
        usage = post(server).json()["usage"]
    counts = metrics(server)
    assert counts["myna:prompt_tokens_total", ""] == 3 * usage["prompt_tokens"]
    assert counts["myna:generation_tokens_total", ""] == 3 * usage["completion_tokens"] == 6
    assert counts["myna:time_to_first_token_seconds_count", ""] == 3
    assert counts["myna:inter_token_latency_seconds_count", ""] == 3
    assert counts["myna:e2e_request_latency_seconds_count", ""] == 3
    assert counts["myna:http_requests_total", "/v1/chat/completions,200"] == 3


def test_paths_that_do_not_exist_make_no_new_metric(live: Start) -> None:
    server = live([])
    for i in range(5):
        httpx.get(f"{server.url}/nothing/{i}")
    assert metrics(server)["myna:http_requests_total", "other,404"] == 5


def test_counts_only_grow(live: Start) -> None:
    server = live(Scripted(["a", ProviderError("broken"), "b"]))
    before = metrics(server)
    for _ in range(3):
        post(server)
        after = metrics(server)
        assert all(after[key] >= value for key, value in before.items() if key[0].endswith("_total"))
        before = after


def test_health_counts(live: Start) -> None:
    server = live(["ok"])
    post(server)
    body = httpx.get(f"{server.url}/health").json()
    assert body["status"] == "ok"
    assert body["models"] == {"scripted": {"state": "ready", "waiting": 0, "running": 0}}


def test_a_wrong_method_is_told_the_right_ones(live: Start) -> None:
    server = live([])
    for path, method, allow in [
        ("/v1/chat/completions", "GET", "POST"),
        ("/v1/models", "POST", "GET, HEAD"),
        ("/v1/models/load", "DELETE", "GET, HEAD, POST"),
    ]:
        answer = httpx.request(method, server.url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert answer.json()["error"]["code"] == "method_not_allowed"


# Starting.


def test_the_port_answers_before_the_model_is_loaded() -> None:
    gate = threading.Event()

    def load() -> Scripted:
        assert gate.wait(20)
        return Scripted(["ok"], name="m")

    desk = open_desk()
    desk.models.add(Loadable("m", load, lambda: 1))
    with Live(App(desk, Guard())) as server:
        early = post(server)
        ready = httpx.get(f"{server.url}/ready")
        health = httpx.get(f"{server.url}/health")
        gate.set()
        eventually(lambda: httpx.get(f"{server.url}/ready").status_code == 200)
        assert post(server).status_code == 200
    assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
    assert int(early.headers["retry-after"]) >= 1
    assert (ready.status_code, ready.json()["status"]) == (503, "loading")
    assert (health.status_code, health.json()["models"]) == (200, {"m": {"state": "loading"}})


def test_no_part_of_a_reply_waits_until_the_one_before_it_was_acknowledged() -> None:
    with _bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_whose_model_cannot_be_loaded_says_so_and_ends() -> None:
    def load() -> Scripted:
        raise MynaError("it does not fit")

    desk = open_desk()
    desk.models.add(Loadable("m", load, lambda: 1))
    started = []
    with pytest.raises(MynaError, match="it does not fit"):
        serve(App(desk, Guard()), port=0, started=started.append)
    assert started == []


# The log.


def test_a_line_a_request_with_its_id_and_never_what_was_said(live: Start, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    server = live(["the answer is Plugh"], keys=Keys([key_of(key, "ci")]))
    with caplog.at_level(logging.INFO):
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers={"x-api-key": key})
        eventually(lambda: any(r.name == "myna.access" for r in caplog.records))
    (record,) = [r for r in caplog.records if r.name == "myna.access"]
    row = json.loads(JsonLines().format(record))
    assert row["request_id"] == answer.headers["x-request-id"]
    assert (row["status"], row["model"], row["key"], row["outcome"]) == (200, "scripted", "ci", "stop")
    assert row["completion_tokens"] == answer.json()["usage"]["completion_tokens"]
    for secret in ("Xyzzy", "Plugh", key):
        assert secret not in caplog.text + json.dumps(row)


def test_prompts_are_logged_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    desk = open_desk(log_prompts=True)
    desk.models.add(Scripted(["ok"]))
    with caplog.at_level(logging.INFO), Live(App(desk, Guard())) as server:
        answer = post(server)
    (record,) = [r for r in caplog.records if "Xyzzy" in r.getMessage()]
    assert json.loads(JsonLines().format(record))["request_id"] == answer.headers["x-request-id"]


def test_a_path_cannot_write_lines_of_its_own(live: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = live([])
    with caplog.at_level(logging.INFO):
        httpx.get(f"{server.url}/x%0Arequest_id=forged%1b[2J")
        eventually(lambda: any(r.name == "myna.access" for r in caplog.records))
    (record,) = [r for r in caplog.records if r.name == "myna.access"]
    assert "\n" not in record.getMessage()
    assert "\x1b" not in record.getMessage()


def test_waiting_reading_and_writing_are_told_apart_and_so_is_the_work_on_grammars(live: Start) -> None:
    provider = replay(['{"a": 1}', "plain"], seconds=0.01)
    server = live(provider)
    form = {"response_format": {"type": "json_object"}, "logprobs": True}
    assert metrics(server)["myna:grammar_mask_seconds_total", ""] == 0
    for more in (form, {}):
        assert post(server, **more).status_code == 200
    counts = metrics(server)
    provider.close()
    queue, prefill, first, decode, whole = (
        counts[f"myna:{name}_seconds_sum", ""]
        for name in ("request_queue_time", "request_prefill_time", "time_to_first_token", "request_decode_time", "e2e_request_latency")
    )  # fmt: skip
    assert counts["myna:request_queue_time_seconds_count", ""] == 2
    assert counts["myna:request_prefill_time_seconds_count", ""] == 2
    assert queue > 0
    assert prefill > 2 * 0.01  # a step is at least so long
    assert queue + prefill < first
    assert first + decode == pytest.approx(whole)
    assert counts["myna:inter_token_latency_seconds_sum", ""] == pytest.approx(decode)
    assert counts["myna:grammar_compilations_total", ""] == 1
    assert counts["myna:grammar_compilation_seconds_total", ""] > 0
    assert counts["myna:grammar_mask_seconds_total", ""] > 0


def test_the_prompt_of_an_answer_that_was_left_is_counted_by_its_length(live: Start) -> None:
    server = live(Scripted(["word " * 9_999], delay=0.001))
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        next(response.iter_lines())
    eventually(lambda: server.app.desk.active == 0)
    assert metrics(server)["myna:prompt_tokens_total", ""] == len(CHAT["messages"][0]["content"]) // 4
