"""What the server writes down: a line a request, with its id, and never what was said (unless --log-prompts asks)."""

import logging
from datetime import UTC, datetime

import orjson
from starlette.types import Scope

from myna.records import Json
from myna.serve.account import Account

log = logging.getLogger("myna.access")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and all that was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        row: Json = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(row, default=str).decode()


def log_request(account: Account, scope: Scope, status: int, seconds: float) -> None:
    """One line when a request has ended. Health checks, scrapes and the page's files are not worth one at INFO."""
    level = logging.DEBUG if scope["method"] == "GET" and status < 400 else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields: Json = {
        "request_id": account.id,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "seconds": round(seconds, 4),
    }
    if account.caller:
        fields["key"] = account.caller.name
    if account.model:
        fields |= {
            "model": account.model,
            "prompt_tokens": account.prompt_tokens,
            "completion_tokens": account.completion_tokens,
            "outcome": account.outcome,
            "first_token_seconds": account.first_token and round(account.first_token, 4),
        }
    shown = " ".join(
        f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in fields.items()
    )
    log.log(level, "request %s", shown, extra=fields)
