"""Changing a database: a function of its own, apart from everything that reads, and one that asks first.

It is made to be the work of a tool with effect "danger". Without somebody who approves, it refuses.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from myna.apps.sql.database import Database, Limits
from myna.apps.sql.guard import Allowed, check_change
from myna.records import SqlError


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody is asked to approve: this statement, letter by letter, on this database. `sha256` is of both."""

    database: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.database}\0{self.sql}".encode()).hexdigest()


Approve = Callable[[Change], Awaitable[bool]]


async def nobody(change: Change) -> bool:
    """Approves nothing."""
    return False


async def write(database: Database, sql: str, approve: Approve = nobody, limits: Limits = Limits()) -> int:
    """Runs one INSERT, UPDATE or DELETE of a known table, whole or not at all, once `approve` said yes to exactly what will be
    run. Returns how many rows changed. Raises SqlError, refused."""
    tables = await asyncio.to_thread(database.tables)
    change = Change(database.name, check_change(sql, Allowed.of(database.dialect, tables)))
    if await approve(change) is not True:
        raise SqlError(f"Nobody approved it, and nothing was changed: {change.sql}", kind="refused", sql=sql)
    return await asyncio.to_thread(database.change, change.sql, limits)
