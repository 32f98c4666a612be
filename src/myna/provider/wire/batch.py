"""Files and batches on the wire: OpenAI's objects, an order for a batch, and the lines of its input and output."""

from collections.abc import Iterable
from typing import Any

import orjson

from myna.provider.wire.body import read_object
from myna.records import Json, RequestError

PURPOSES = ("batch", "fine-tune", "evals", "user_data", "assistants", "vision")
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
TIMES = (
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
)  # fmt: skip


def write_file(id: str, size: int, created_at: int, filename: str, purpose: str) -> Json:
    return {
        "id": id, "object": "file", "bytes": size, "created_at": created_at, "filename": filename,
        "purpose": purpose, "status": "processed", "expires_at": None, "status_details": None,
    }  # fmt: skip


def write_batch(batch: Any, output: bool, error: bool) -> Json:
    """`output` and `error`: whether these files exist."""
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_id if output else None,
        "error_file_id": batch.error_id if error else None,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    } | {f"{name}_at": batch.times.get(name) for name in TIMES}


def write_list(rows: Iterable[Json], has_more: bool) -> Json:
    data = [*rows]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": has_more} | ends


def read_order(raw: bytes) -> Json:
    """An order for a batch: endpoint, input_file_id, completion_window, metadata. Raises RequestError with its param."""
    order = read_object(raw)
    for name in ("endpoint", "input_file_id", "completion_window"):
        if name not in order:
            raise RequestError(f"{name} is missing.", param=name, code="missing_required_parameter")
    if order["endpoint"] not in ENDPOINTS:
        raise RequestError(f"endpoint: expected one of {', '.join(ENDPOINTS)}.", param="endpoint")
    if not isinstance(order["input_file_id"], str):
        raise RequestError("input_file_id: expected a string.", param="input_file_id", code="invalid_type")
    if order["completion_window"] != "24h":
        raise RequestError("completion_window: expected '24h'.", param="completion_window")
    metadata = order.get("metadata")
    if metadata is not None and not _is_metadata(metadata):
        raise RequestError("metadata: expected up to 16 short strings by name.", param="metadata")
    return order


def read_line(raw: bytes, endpoint: str) -> tuple[str, bytes]:
    """(custom id, body) of a line of a batch's input. Raises RequestError."""
    row = read_object(raw, "The line")
    if not isinstance(row.get("custom_id"), str) or not row["custom_id"]:
        raise RequestError("The line must have a custom_id.", param="custom_id")
    if row.get("method") != "POST" or row.get("url") != endpoint:
        raise RequestError(f"The line's method and url must be POST and {endpoint}.", param="url")
    body = row.get("body")
    if not isinstance(body, dict):
        raise RequestError("body: expected an object.", param="body", code="invalid_type")
    if body.get("stream"):
        raise RequestError("A line of a batch cannot be streamed.", param="body.stream")
    return row["custom_id"], orjson.dumps(body)


def write_answer(id: str, custom_id: str, request_id: str, status: int, body: bytes) -> bytes:
    """A line of a batch's output."""
    response = {"status_code": status, "request_id": request_id, "body": orjson.Fragment(body)}
    row = {"id": id, "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _is_metadata(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 16
        and all(isinstance(k, str) and isinstance(v, str) and len(k) <= 64 and len(v) <= 512 for k, v in value.items())
    )
