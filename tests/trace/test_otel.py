"""A trace as OpenTelemetry's spans: read back by its own messages, taken by a collector, and without a word of content unless told."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from myna.commands import app
from myna.records import Candidate, Conversation, Document, Message, Reply, RequestError, Sampling, ToolCall, Usage
from myna.trace import Prices, Trace, TraceError, otel
from myna.trace.prices import Price
from myna.trace.read import Node, runs

pytest.importorskip("opentelemetry.proto.trace.v1.trace_pb2")
SECRET = "北京 secret"


def recorded(path: Path) -> tuple[Trace, list[Node]]:
    """A run of a flow: a call with a tool, a call that fails, a tool, a check, a span that was killed."""
    trace = Trace(path, Prices((Price("m", input=1.0, cached=0.5, output=2.0),)))
    asked = Conversation(
        (Message("system", "be kind"), Message("user", SECRET)),
        tools=({"type": "function", "function": {"name": "weather"}},),
    )
    called = Message(
        "assistant",
        "",
        reasoning_content=f"hm {SECRET}",
        tool_calls=(ToolCall("c1", "weather", f'{{"q": "{SECRET}"}}'),),
    )
    with trace.span("flow", "app", question=SECRET):
        with trace.span("step", "answer") as step:
            call = trace.begin("call", "m", endpoint="http://10.0.0.7:8000/v1")
            call.ask("m", asked, Sampling(temperature=0.5, seed=7, stop=("x",), n=1), prompt="p1")
            call.reply("m", Reply((Candidate((called,), finish_reason="tool_calls"),)), Usage(1000, 20, 400))
            call.end()
            step.check("short", False, 0.25, f"because {SECRET}")
        with trace.span("tool", "weather"):
            pass
        failed = trace.begin("call", "m", endpoint="here")
        failed.ask("m", Document(SECRET), Sampling())
        failed.fail(ValueError(f"no {SECRET} {chr(0xD800)}"))
        failed.end()
        trace.begin("step", "killed")
    return trace, runs(trace.store)


def facts(attributes: Any) -> dict[str, Any]:
    found = {}
    for one in attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [part.string_value for part in value.values] if kind == "array_value" else value
    return found


def spans(path: Path, *, content: bool = False) -> list[Any]:
    trace, found = recorded(path)
    (message,) = otel.messages(trace.store, found, content=content)
    again = type(message).FromString(message.SerializeToString())
    return list(again.resource_spans[0].scope_spans[0].spans)


def test_spans_have_the_names_parents_and_times_of_the_trace(tmp_path: Path) -> None:
    flow, step, call, tool, failed, killed = spans(tmp_path / "t.sqlite")
    assert [one.name for one in (flow, step, call, tool, failed, killed)] == [
        "invoke_workflow app", "step answer", "chat m", "execute_tool weather", "text_completion m", "step killed",
    ]  # fmt: skip
    assert flow.parent_span_id == b""
    assert (step.parent_span_id, call.parent_span_id) == (flow.span_id, step.span_id)
    assert {one.trace_id for one in (flow, step, call, tool, failed, killed)} == {flow.trace_id}
    assert len({one.span_id for one in (flow, step, call, tool, failed, killed)}) == 6
    assert (len(flow.trace_id), len(flow.span_id)) == (16, 8)
    assert flow.start_time_unix_nano <= step.start_time_unix_nano <= call.end_time_unix_nano <= step.end_time_unix_nano
    assert killed.end_time_unix_nano == killed.start_time_unix_nano
    assert facts(killed.attributes)["myna.outcome"] == "unfinished"


def test_a_call_has_the_conventions_names(tmp_path: Path) -> None:
    names = spans(tmp_path / "t.sqlite")
    found = facts(names[2].attributes)
    assert found == {
        "myna.kind": "call", "myna.outcome": "ok", "myna.prompt": "p1", "myna.cost": pytest.approx((600 + 200 + 40) / 1e6),
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "myna", "gen_ai.request.model": "m", "gen_ai.response.model": "m",
        "gen_ai.request.temperature": 0.5, "gen_ai.request.seed": 7, "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.choice.count": 1, "gen_ai.response.finish_reasons": ["tool_calls"], "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 20, "gen_ai.usage.cache_read.input_tokens": 400,
        "server.address": "10.0.0.7", "server.port": 8000,
    }  # fmt: skip
    assert names[4].status.code == 2
    assert facts(names[4].attributes)["error.type"] == "ValueError"
    (event,) = names[1].events
    assert event.name == "gen_ai.evaluation.result"
    assert facts(event.attributes) == {
        "gen_ai.evaluation.name": "short", "gen_ai.evaluation.score.value": 0.25, "gen_ai.evaluation.score.label": "fail",
    }  # fmt: skip


def test_the_names_are_those_of_the_conventions_package(tmp_path: Path) -> None:
    attributes = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(attributes).items() if name.startswith("GEN_AI_")}
    used = {name for one in spans(tmp_path / "t.sqlite", content=True) for name in facts(one.attributes)}
    assert {name for name in used if name.startswith("gen_ai.")} <= known


def test_what_was_said_leaves_only_when_told(tmp_path: Path) -> None:
    assert SECRET not in str([facts(one.attributes) for one in spans(tmp_path / "t.sqlite")])
    without, with_it = (
        b"".join(one.SerializeToString() for one in spans(tmp_path / name, content=told))
        for name, told in (("a.sqlite", False), ("b.sqlite", True))
    )
    assert SECRET.encode() not in without
    assert SECRET.encode() in with_it
    call = facts(spans(tmp_path / "c.sqlite", content=True)[2].attributes)
    assert json.loads(call["gen_ai.output.messages"]) == [
        {"role": "assistant", "finish_reason": "tool_calls", "parts": [
            {"type": "reasoning", "content": f"hm {SECRET}"},
            {"type": "tool_call", "id": "c1", "name": "weather", "arguments": f'{{"q": "{SECRET}"}}'},
        ]}
    ]  # fmt: skip
    assert json.loads(call["gen_ai.input.messages"])[1]["parts"] == [{"type": "text", "content": SECRET}]


def test_a_run_sent_twice_has_the_same_ids_and_another_run_others(tmp_path: Path) -> None:
    trace, found = recorded(tmp_path / "t.sqlite")
    first, second = (next(otel.messages(trace.store, found)).SerializeToString() for _ in range(2))
    assert first == second
    other = spans(tmp_path / "u.sqlite")
    assert other[0].span_id not in {one.span_id for one in spans(tmp_path / "v.sqlite")}


def test_many_spans_go_in_several_messages_and_none_is_lost(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "many"):
        for k in range(1200):
            trace.begin("step", str(k)).end()
    sizes = [otel.count(message) for message in otel.messages(trace.store, runs(trace.store))]
    assert sizes == [512, 512, 177]


@contextmanager
def collector(status: int = 200, answer: bytes = b"") -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collect) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_a_collector_gets_protobuf_and_the_headers_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    recorded(tmp_path / "t.sqlite")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20k, x-a=b")
    with collector() as (url, seen):
        app(["trace", "send", url, "--trace", str(tmp_path / "t.sqlite")], result_action="return_value")
    ((path, headers, body),) = seen
    assert path == "/v1/traces"
    assert (headers["content-type"], headers["authorization"]) == ("application/x-protobuf", "Bearer k")
    assert otel.count(ExportTraceServiceRequest.FromString(body)) == 6
    assert capsys.readouterr().out.startswith("6 spans -> http://")


def test_spans_that_are_not_taken_are_an_error(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    trace, found = recorded(tmp_path / "t.sqlite")
    (message,) = otel.messages(trace.store, found)
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans, partial.partial_success.error_message = 4, "too old"
    for status, answer, said in (
        (200, partial.SerializeToString(), "refused 4 spans: too old"),
        (200, b"<html>a page</html>", "no collector's answer"),
        (503, b"", "503"),
        (302, b"", "302"),
    ):
        with collector(status, answer) as (url, _), pytest.raises(TraceError, match=said) as caught:
            otel.send(url, message, {})
        assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match="Is a collector there"):
        otel.send("http://127.0.0.1:9", message, {})


@pytest.mark.parametrize("url", ["http://h:99999/v1", "http://[::1/v1"])
def test_a_call_to_an_address_that_is_none_is_told_like_others(tmp_path: Path, url: str) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    call = trace.begin("call", "m", endpoint=url)
    call.ask("m", Conversation.ask("Hi"), Sampling())
    call.end()
    (message,) = otel.messages(trace.store, runs(trace.store))
    assert "server.port" not in facts(message.resource_spans[0].scope_spans[0].spans[0].attributes)


def test_a_file_holds_otlps_json_with_ids_in_hexadecimal(tmp_path: Path) -> None:
    recorded(tmp_path / "t.sqlite")
    out = tmp_path / "spans.jsonl"
    app(["trace", "send", str(out), "--trace", str(tmp_path / "t.sqlite")], result_action="return_value")
    (line,) = out.read_text(encoding="utf-8").splitlines()
    first, second, *_ = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    run = runs(Trace(tmp_path / "t.sqlite").store)[0]
    assert first["traceId"] == hashlib.sha256(f"{run.began}:{run.id}".encode()).hexdigest()[:32]
    assert second["parentSpanId"] == first["spanId"]


def test_headers_that_are_none_are_refused() -> None:
    assert otel.headers("") == {}
    with pytest.raises(RequestError):
        otel.headers("Bearer abc")
