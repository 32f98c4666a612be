"""Arguments checked against a stranger's schema, in forms' child process: twenty definitions that each refer twice to the next keep
a validator busy for longer than anybody waits."""

import asyncio
import json
from functools import lru_cache
from typing import TYPE_CHECKING

from myna.apps.tools.tool import Check
from myna.records import Json

if TYPE_CHECKING:
    from myna.forms.worker import Workers

SECONDS = 5.0


@lru_cache(1)
def _workers() -> "Workers":
    from myna.forms.worker import Workers

    return Workers()


def checked(schema: Json) -> Check:
    """The check of a tool whose parameters these are. A schema that cannot be used is a problem of every call."""
    source = json.dumps({"type": "object"} | schema)

    async def check(arguments: Json) -> str | None:
        question = {"do": "check", "kind": "json_schema", "source": source, "text": json.dumps(arguments)}
        return await asyncio.to_thread(_ask, question)

    return check


def _ask(question: Json) -> str | None:
    from myna.forms.worker import WorkerFailed, WorkersBusy

    try:
        answer = _workers().ask(question, SECONDS)
    except WorkersBusy:
        return "they cannot be checked now: too much is being checked; try again"
    except WorkerFailed as e:
        return f"the tool's schema cannot be used: {e}"
    if error := answer.get("error"):
        return f"the tool's schema cannot be used: {error}"
    return answer["problem"]
