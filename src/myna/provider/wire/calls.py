"""Tool calls on the wire: which of them a request's history holds, and their arguments as an object."""

from myna.provider.wire.body import read_object
from myna.records import Json, RequestError

MALFORMED = "INVALID_JSON"


def read_arguments(text: str) -> Json:
    """A call's arguments for an API that gives an object and not the model's text. What is no object (the answer was cut, or
    the model wrote nonsense) is not hidden: it is the value of the key INVALID_JSON, which no schema knows."""
    try:
        return read_object((text or "{}").encode("utf-8", "surrogatepass"))
    except RequestError:
        return {MALFORMED: text}


class Calls:
    """Calls have unique ids, and an answer names a call made before it. Told of every call and every answer in order, each
    with the dotted path of its id in the request."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def made(self, id: str, name: str, path: str) -> None:
        if id in self._names:
            raise RequestError(f"{path}: {id!r} was used by an earlier call.", param=path)
        self._names[id] = name

    def answered(self, id: str | None, path: str) -> str:
        """The name of the tool that was called."""
        if id is None or id not in self._names:
            raise RequestError(f"{path}: no earlier turn made the call {id!r}.", param=path)
        return self._names[id]
