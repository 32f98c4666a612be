"""The tools of both clerks: the shop's database (read, and with an approval changed), a calculator, and notes."""

import ast
import operator
import os
from pathlib import Path

from myna.apps.sql import connect
from myna.apps.sql.tools import sql_tools
from myna.apps.tools import tool
from myna.records import MynaError, ToolError

# CHINOOK names the database, NOTES the folder of notes. The rows are the shop's own, so they taint nothing.
if "CHINOOK" not in os.environ:
    raise MynaError("the clerk needs a database: export CHINOOK=Chinook_Sqlite.sqlite (docs/agents.md)")
tables, query, change = sql_tools(connect(os.environ["CHINOOK"]), trusted=True)
NOTES = Path(os.environ.get("NOTES", "notes"))
LARGEST = 10**12
OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


@tool(effect="read", egress=False)
def calculate(expression: str) -> float:
    """Work out an expression of numbers with + - * / and brackets. 计算算式。

    Args:
        expression: Such as (3.5 + 4) * 2.
    """
    try:
        return round(_value(ast.parse(expression.strip()[:200], mode="eval").body), 6)
    except (SyntaxError, ZeroDivisionError, RecursionError, ValueError) as e:
        raise ToolError(f"{expression!r} cannot be worked out: {e}") from None


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) <= LARGEST:
            return float(value)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return float(OPERATIONS[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
    raise ValueError("only numbers, + - * / and brackets are understood")


@tool(effect="write")
def add_note(title: str, text: str) -> str:
    """Write a note for the staff, or replace the one of this title. 写一条备注。

    Args:
        title: One or a few words.
        text: What it says.
    """
    name = "".join(c if c.isalnum() else "_" for c in title)[:60]
    if not name.strip("_"):
        raise ToolError("a note needs a title with letters or digits")
    NOTES.mkdir(parents=True, exist_ok=True)
    (NOTES / f"{name}.txt").write_text(text, encoding="utf-8")
    return f"noted under {title}"
