"""How much the server takes on before it says no."""

from dataclasses import dataclass, fields

from myna.records import MynaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server takes on.

    Attributes
    ----------
    max_queue
        Answers of a model that may wait for their first token. Beyond it a request is refused with a 429.
    max_queue_tokens
        Prompt tokens that may wait with them.
    max_active
        Requests being read or answered at once, of all models.
    max_body
        Bytes of a request's body.
    max_file
        Bytes of an uploaded file.
    max_files
        Bytes that all files together may take.
    keepalive
        Seconds of silence in a stream before a comment is sent, so that no proxy takes it for dead.
    drain
        Seconds that accepted requests have to finish after the first Ctrl-C or SIGTERM.

    Raises MynaError on one that would refuse everything. `drain` may be 0: then nothing is waited for.
    """

    max_queue: int = 256
    max_queue_tokens: int = 1 << 18
    max_active: int = 1024
    max_body: int = 16 << 20
    max_file: int = 200 << 20
    max_files: int = 8 << 30
    keepalive: float = 15.0
    drain: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0 or (value == 0 and field.name != "drain"):
                flag = "--" + field.name.replace("_", "-")
                raise MynaError(f"{flag} is {value}: the server could answer nothing. Give it a number above 0.")
