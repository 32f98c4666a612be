"""The error tree. An error says what, where, and what to run next.

    MynaError
    ├── DataError          a record or a data file is malformed (file:line and field)
    ├── ModelDirError      a model directory or model file cannot be trusted or read
    ├── DownloadError      a model could not be fetched
    ├── ChatError          a tokenizer or chat template cannot do what was asked
    ├── RequestError       the request is at fault; carries `param` and `code` as OpenAI's error body does
    ├── Unavailable        not now: loading, draining, full or over a limit; carries `retry_after` seconds and a `code`
    ├── ProviderError      a model endpoint failed; carries its HTTP `status`, or None when it never answered
    ├── ToolError          a tool cannot do what it was asked; its message goes back to the model, as data
    ├── DocumentError      a document cannot be read; names the file and the reason
    ├── SqlError           a query was refused or failed; carries the `kind` of failure and the `sql`
    └── Unjudged           a check could come to no verdict: an outcome of its own, never a score

The command line prints one line and exits 2; the server answers in OpenAI's error shape.
Anything else that is raised is a bug of ours and keeps its traceback.
"""

from typing import Literal

SqlFailure = Literal["refused", "failed", "time", "size", "unavailable"]


class MynaError(Exception):
    """An error whose message is written for the person who will read it."""


class DataError(MynaError):
    """A record or a data file is malformed."""


class ModelDirError(MynaError):
    """A model directory or model file cannot be trusted or read."""


class DownloadError(MynaError):
    """A model could not be fetched."""


class ChatError(MynaError):
    """A tokenizer or chat template cannot do what was asked."""


class RequestError(MynaError):
    """The request is at fault. `param` is a dotted path into it, `code` a stable machine-readable name."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value"):
        super().__init__(message)
        self.param = param
        self.code = code


class Unavailable(MynaError):
    """Not now: try again in `retry_after` seconds. `code`: "not_ready", "queue_full", "rate_limit_exceeded" or "disk_full"."""

    def __init__(self, message: str, *, retry_after: int = 1, code: str = "not_ready"):
        super().__init__(message)
        self.retry_after = retry_after
        self.code = code


class ProviderError(MynaError):
    """A model endpoint failed. `status` is its HTTP status, or None when it never answered."""

    def __init__(self, message: str, *, status: int | None = None):
        super().__init__(message)
        self.status = status


class ToolError(MynaError):
    """A tool cannot do what it was asked. The message goes back into the conversation, so it is written for the model."""


class DocumentError(MynaError):
    """A document cannot be read: encrypted, damaged, too large, too slow. The message begins with the file."""


class SqlError(MynaError):
    """A query was refused or failed; `sql` is what was asked for.

    kind    refused: a guard or the connection does not allow it; failed: the database cannot run it; time, size: it takes or
            gives too much; unavailable: no such database, locked, corrupt, wrong password
    """

    def __init__(self, message: str, *, kind: SqlFailure, sql: str = ""):
        super().__init__(message)
        self.kind = kind
        self.sql = sql


class Unjudged(MynaError):
    """A check could come to no verdict: its judge said nothing that can be read, or time was up. Counted, never a score."""
