"""An answer that is a query. What a query may be is known above this room, so the check is given a function
that says so:

    from myna.apps.sql.guard import Allowed, check
    sql(lambda query: check(query, allowed))          # it may run
    sql(lambda query: database.run(query).rows)       # it runs
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from myna.checks.check import Check, Verdict
from myna.records import Candidate, Conversation, DataError, SqlError, Unjudged

FENCE = re.compile(r"```(?:sql)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
NOT_ITS_FAULT = ("unavailable",)


def sql(guard: Callable[[str], Any], /, *, same_rows: bool = False) -> Check:
    """The function takes the query and raises no SqlError.

    same_rows   it gives rows, and those of the conversation's target are the same ones, in any order (execution match)

    Where the database is not there, no verdict can be had: Unjudged.
    """

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        if not (query := query_of(candidate.text)):
            return Verdict.of(False, "there is no query in it")
        try:
            found = guard(query)
        except SqlError as e:
            if e.kind in NOT_ITS_FAULT:
                raise Unjudged(str(e)) from None
            return Verdict.of(False, f"{e.kind}: {e}"[:500])
        if not same_rows:
            return Verdict.of(True)
        if not isinstance(conversation.target, str):
            raise DataError(f"{conversation.id or 'a conversation'} has no query as its target to compare rows with")
        try:
            wanted = guard(conversation.target)
        except SqlError as e:
            raise Unjudged(f"the target's query does not run: {e}") from None
        same = _rows(found) == _rows(wanted)
        return Verdict.of(same, "" if same else f"{len(found)} rows that are not the {len(wanted)} of the target")

    return check


def query_of(text: str) -> str:
    """The first fenced block, or all of it."""
    found = FENCE.search(text)
    return (found[1] if found else text).strip()


def _rows(rows: Iterable[Iterable[object]]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(repr(cell) for cell in row) for row in rows)
