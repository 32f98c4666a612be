"""Errors on the wire: `{"error": {"message", "type", "param", "code"}}` and a status."""

from collections.abc import Mapping
from typing import Any

import orjson

from myna.records import ChatError, DataError, Json, MynaError, ProviderError, RequestError, Unavailable

# A RequestError is 400 and an Unavailable 503 unless its code says otherwise.
STATUS_OF_CODE = {
    "invalid_api_key": 401,
    "host_not_allowed": 403,
    "origin_not_allowed": 403,
    "model_not_found": 404,
    "not_found": 404,
    "not_configured": 404,
    "method_not_allowed": 405,
    "request_too_large": 413,
    "queue_full": 429,
    "rate_limit_exceeded": 429,
    "disk_full": 507,
}
TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "service_unavailable",
}
ANTHROPIC_TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
AT_V1 = "addresses of this API mostly end in /v1"
READ = 500  # characters of an endpoint's words
BUG = "Something went wrong inside the server; this is a bug. Its log has the details under request id {id}."


def write_error(error: Exception, *, request_id: str = "") -> tuple[int, Json, dict[str, str]]:
    """(status, body, headers). An error that is none of ours is a 500 that gives away nothing but the request's id."""
    status, headers = _status(error), {}
    param, code = None, None
    message = str(error)
    if isinstance(error, RequestError):
        param, code = error.param, error.code
    elif isinstance(error, DataError | ChatError):
        param, code = _param_of(message), "invalid_value"
    elif isinstance(error, Unavailable):
        code = error.code
        headers["retry-after"] = str(error.retry_after)
    elif isinstance(error, ProviderError):
        code = "provider_failed"
    else:
        code, message = "internal_error", BUG.format(id=request_id)
    kind = TYPE_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, headers


def in_shape_of(path: str, status: int, body: Json) -> Json:
    """An error body in the shape of the API that `path` belongs to: Anthropic's, Ollama's, else OpenAI's as it is.

    Anthropic's and Ollama's clients read the type and the message; param and code are there for people.
    """
    error = body["error"]
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        kind = ANTHROPIC_TYPE_OF_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {**error, "type": kind}}
    if path.startswith("/api/"):
        return {"error": error["message"], "param": error["param"], "code": error["code"]}
    return body


def read_error(status: int, headers: Mapping[str, str], body: bytes, url: str) -> MynaError:
    """The exception that the refusal of the endpoint at `url` amounts to: ours to mend, not now, or the endpoint's own failure. Its
    message is one line, and says what to do next where that is known."""
    error = _error_object(body)
    message = f"{url} answered {status}: {message_in(body)}"
    if 300 <= status < 400 and (there := headers.get("location")):
        message = f"{url} answered {status} and sends on to {there}. Nothing follows it there, since what is asked and the key would go along; name that address if it is right."
    if status in (429, 503):
        usual = "rate_limit_exceeded" if status == 429 else "not_ready"
        code, after = error.get("code"), headers.get("retry-after")
        seconds = _seconds(after)
        message += f" (try again {f'in {seconds} seconds' if after else 'later'})"
        return Unavailable(message, retry_after=seconds, code=code if isinstance(code, str) else usual)
    if status in (401, 403):
        message += " (the key that is sent is $MYNA_API_KEY, to openai: $OPENAI_API_KEY)"
    if status == 404 and not error:
        message += f" ({AT_V1})"
    if status in (400, 404, 413, 422):
        param, code = error.get("param"), error.get("code")
        return RequestError(
            message,
            param=param if isinstance(param, str) else None,
            code=code if isinstance(code, str) else "invalid_value",
        )
    return ProviderError(message, status=status)


def message_in(body: bytes) -> str:
    """What an error body says, or as much of the body as a person would read, in one line."""
    said = str(_error_object(body).get("message") or body.decode("utf-8", "replace"))
    return " ".join(said[: 2 * READ].split())[:READ] or "no message"


def _status(error: Exception) -> int:
    match error:
        case RequestError():
            return STATUS_OF_CODE.get(error.code, 400)
        case DataError() | ChatError():
            return 400
        case Unavailable():
            return STATUS_OF_CODE.get(error.code, 503)
        case ProviderError():
            return 502
    return 500


def _param_of(message: str) -> str | None:
    """DataError says "messages.3.role: ..."; what stands before the colon is the param."""
    path, colon, _ = message.partition(": ")
    return path if colon and " " not in path else None


def _error_object(body: bytes) -> dict[str, Any]:
    """The error inside a body: OpenAI's object, or the bare string and FastAPI's `detail` that others send."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    found = (value.get("error") or value.get("detail") or value) if isinstance(value, dict) else value
    return found if isinstance(found, dict) else {"message": str(found)}


def _seconds(retry_after: str | None) -> int:
    """Retry-After in seconds; its other form, a date, is rare and counts as 1."""
    return max(1, int(retry_after[:9])) if retry_after and retry_after.isascii() and retry_after.isdigit() else 1
