"""A trace as OpenTelemetry spans, for whoever has a collector. The one place that knows its names.

Names are those of the semantic conventions for generative AI (gen_ai.*, development status), and myna.* for what they have no name
for. What people and models said leaves the file only where `content` says so.
"""

import hashlib
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import orjson

from myna.records import Candidate, Conversation, Document, Message, MynaError, RequestError, Sampling, Usage, jsonl
from myna.trace.read import Call, Node
from myna.trace.request import read_reply, read_request
from myna.trace.store import Store, TraceError
from myna.trace.trace import clean

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

MOST = 512  # spans of a message, as the SDK's batches
OPERATIONS = {
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "flow": "invoke_workflow",
}  # kind of span -> gen_ai.operation.name
NAMES = {"tool": "gen_ai.tool.name", "agent": "gen_ai.agent.name", "flow": "gen_ai.workflow.name"}
SAID = ("temperature", "top_p", "top_k", "max_tokens", "seed", "presence_penalty", "frequency_penalty")


def messages(store: Store, runs: Iterable[Node], *, content: bool = False) -> "Iterator[ExportTraceServiceRequest]":
    """All spans of some runs, in OTLP's messages of at most 512. The same run has the same ids however often it is sent.

    content   with what was asked and answered, facts, reasons and the words of errors; else names, numbers and times alone
    Raises MynaError where the package is not here, TraceError where the file is damaged.
    """
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError:
        raise MynaError('OpenTelemetry\'s messages are not here: pip install "myna[otel]"') from None
    every = (_span(store, run, node, content) for run in runs for node in run.spans)
    while group := [span for _, span in zip(range(MOST), every, strict=False)]:
        message = ExportTraceServiceRequest()
        part = message.resource_spans.add()
        _add(part.resource.attributes, {"service.name": "myna"})
        scope = part.scope_spans.add()
        scope.scope.name = "myna.trace"
        scope.spans.extend(group)
        yield message


def send(url: str, message: "ExportTraceServiceRequest", headers: dict[str, str]) -> None:
    """To a collector, "http://127.0.0.1:4318"; OTLP over HTTP. Raises TraceError where it does not take every span."""
    import httpx
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    where = url.rstrip("/").removesuffix("/v1/traces") + "/v1/traces"
    sent = {"content-type": "application/x-protobuf", **headers}
    try:
        answer = httpx.post(where, content=message.SerializeToString(), headers=sent, timeout=30.0)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        why = str(e).rstrip(".") or type(e).__name__
        raise TraceError(f"{where} did not take the spans: {why}. Is a collector there?") from None
    try:
        said = ExportTraceServiceResponse.FromString(answer.content).partial_success
    except DecodeError:
        said = None
    if not answer.is_success or said is None:
        what = "what is no collector's answer" if answer.is_success else answer.status_code
        raise TraceError(f"{where} did not take the spans: it answered {what}. Is a collector there?")
    if said.rejected_spans:
        raise TraceError(f"{where} refused {said.rejected_spans} spans: {said.error_message[:200]}")


def write(path: Path, messages: "Iterable[ExportTraceServiceRequest]") -> int:
    """To a file, a JSON line a message (OTLP's file format); how many spans. The file is whole or not there."""
    from google.protobuf.json_format import MessageToDict

    sent: list[int] = []

    def rows() -> Iterator[Any]:
        for message in messages:
            sent.append(count(message))
            yield _hex_ids(MessageToDict(message))

    jsonl.write_rows(path, rows())
    return sum(sent)


def headers(said: str) -> dict[str, str]:
    """ "name=value,other=value" as the SDKs read it: values are percent-encoded. Raises RequestError."""
    found = {}
    for part in filter(None, (part.strip() for part in said.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"OTEL_EXPORTER_OTLP_HEADERS: {part[:20]!r}... is no name=value.", param="headers")
        found[name.strip().lower()] = unquote(value.strip())
    return found


def count(message: "ExportTraceServiceRequest") -> int:
    """Spans in a message."""
    return sum(len(scope.spans) for part in message.resource_spans for scope in part.scope_spans)


def _hex_ids(row: Any) -> Any:
    """OTLP's JSON has ids in hexadecimal where Protobuf's has base64."""
    if isinstance(row, list):
        return [_hex_ids(one) for one in row]
    if not isinstance(row, dict):
        return row
    ids = {name: b64decode(row[name]).hex() for name in ("traceId", "spanId", "parentSpanId") if name in row}
    return {name: _hex_ids(value) for name, value in row.items()} | ids


def _span(store: Store, run: Node, node: Node, content: bool) -> "Span":
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    span = Span(
        trace_id=_hash(f"{run.began}:{node.run}")[:16],
        span_id=_hash(f"{run.began}:{node.id}")[:8],
        parent_span_id=_hash(f"{run.began}:{node.parent}")[:8] if node is not run else b"",
        name=f"{OPERATIONS.get(node.kind, node.kind)} {node.name}",
        kind=Span.SPAN_KIND_CLIENT if node.call else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=_nanoseconds(node.began),
        end_time_unix_nano=_nanoseconds(node.ended or node.began),
    )
    facts: dict[str, Any] = {"myna.kind": node.kind, "myna.outcome": node.outcome or "unfinished"}
    if node.kind in OPERATIONS:
        facts |= {"gen_ai.operation.name": OPERATIONS[node.kind], NAMES[node.kind]: node.name}
    if content:
        facts |= {f"myna.{name}": value for name, value in node.facts.items()}
    if node.call:
        facts |= _call(store, node, node.call, content)
        span.name = f"{facts['gen_ai.operation.name']} {node.call.model}"
    if node.outcome == "error":
        kind, _, words = (node.error or "").partition(":")
        facts["error.type"] = kind or "_OTHER"
        span.status.code, span.status.message = Status.STATUS_CODE_ERROR, words.strip() if content else ""
    _add(span.attributes, facts)
    for check in node.checks:
        event = span.events.add(time_unix_nano=span.end_time_unix_nano, name="gen_ai.evaluation.result")
        _add(event.attributes, {"gen_ai.evaluation.name": check.name, "gen_ai.evaluation.score.value": check.score})
        _add(event.attributes, {"gen_ai.evaluation.score.label": "pass" if check.ok else "fail"})
        _add(event.attributes, {"gen_ai.evaluation.explanation": check.reason} if content and check.reason else {})
    return span


def _call(store: Store, node: Node, call: Call, content: bool) -> dict[str, Any]:
    what, sampling = read_request(store, call.request)
    reply = read_reply(store, call.reply, call.usage or Usage()) if call.reply else None
    host, port = _place(str(node.facts.get("endpoint", "")))
    facts: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion" if isinstance(what, Document) else "chat",
        "gen_ai.provider.name": "openai" if host == "api.openai.com" else "myna",
        "gen_ai.request.model": call.model,
        "gen_ai.response.model": call.model if reply else None,
        "gen_ai.request.choice.count": sampling.n,
        "gen_ai.request.stop_sequences": list(sampling.stop) if sampling.stop else None,
        "server.address": host,
        "server.port": port,
        "myna.prompt": call.prompt,
        "myna.cost": call.cost,
        **{f"gen_ai.request.{name}": getattr(sampling, name) for name in SAID},
    }
    if call.usage:
        facts["gen_ai.usage.input_tokens"] = call.usage.prompt_tokens
        facts["gen_ai.usage.output_tokens"] = call.usage.completion_tokens
        facts["gen_ai.usage.cache_read.input_tokens"] = call.usage.cached_tokens
    if reply:
        facts["gen_ai.response.finish_reasons"] = [one.finish_reason or "unknown" for one in reply.candidates]
    return facts | (_said(what, sampling, reply.candidates if reply else ()) if content else {})


def _place(url: str) -> tuple[str | None, int | None]:
    """Host and port; of an address that is none, which somebody asked all the same, neither."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _said(what: Conversation | Document, sampling: Sampling, candidates: Iterable[Candidate]) -> dict[str, Any]:
    """What was asked and answered, as the conventions' messages of parts, in JSON."""
    asked = (Message("user", what.text),) if isinstance(what, Document) else what.messages
    answers = [
        {**_parts(one.messages[-1]), "finish_reason": one.finish_reason or "unknown"}
        for one in candidates
        if one.messages
    ]
    tools = [] if isinstance(what, Document) else list(what.tools)
    said = {"input.messages": [_parts(one) for one in asked], "output.messages": answers, "tool.definitions": tools}
    return {f"gen_ai.{name}": orjson.dumps(rows).decode() for name, rows in said.items() if rows}


def _parts(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if message.reasoning_content:
        parts.append({"type": "reasoning", "content": message.reasoning_content})
    if message.role == "tool":
        parts.append({"type": "tool_call_response", "id": message.tool_call_id, "response": message.text})
    elif message.text:
        parts.append({"type": "text", "content": message.text})
    for call in message.tool_calls:
        parts.append({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments})
    return {"role": message.role, "parts": parts}


def _add(attributes: Any, facts: dict[str, Any]) -> None:
    """Facts as OTLP's typed attributes; None is left out, what is neither text, number nor a list of texts is JSON."""
    for name, value in facts.items():
        if value is None:
            continue
        holder = attributes.add(key=name).value
        match value:
            case bool():
                holder.bool_value = value
            case int() if -(2**63) <= value < 2**63:
                holder.int_value = value
            case int() | float():
                holder.double_value = float(value)
            case str():
                holder.string_value = clean(value)
            case list() if all(isinstance(one, str) for one in value):
                for one in value:
                    holder.array_value.values.add(string_value=clean(one))
            case _:
                holder.string_value = orjson.dumps(value, default=str).decode()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e6) * 1000
