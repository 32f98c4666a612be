"""What a step's code is: a hash of its function, and one of each function, class, constant and prompt of the same module that it
uses. Comments, layout, docstrings and decorators do not count, nor do other modules: a package that is updated goes unseen.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from myna.apps.flow.errors import FlowError

DIGITS = 16  # hex digits of each hash


def code_of(function: Callable[..., Any]) -> dict[str, str]:
    """Hash by name, the function itself under its own. Raises FlowError where its source cannot be found."""
    found: dict[str, str] = {}
    _add(function, function.__name__, found)
    return dict(sorted(found.items()))


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The names of what is new, gone or different."""
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]


def _add(one: Any, name: str, found: dict[str, str]) -> None:
    tree = _tree(one)
    found[name] = _hash(ast.unparse(tree).encode())
    for used, value in _uses(one, tree):
        if used in found:
            continue
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == one.__module__:
            _add(value, used, found)
        elif (told := _constant(used, value, inspect.getmodule(one))) is not None:
            found[used] = _hash(told)


def _constant(name: str, value: Any, module: Any) -> bytes | None:
    """What a constant is: a text or a tuple by its value, a prompt file by its version, what may change while the flow runs (a list, a
    counter) by the line that makes it and the prompts in it; None for anything else."""
    if isinstance(value, str | bytes | tuple) or hasattr(value, "version"):
        try:
            return orjson.dumps(value, default=_version, option=orjson.OPT_PASSTHROUGH_DATACLASS)
        except (TypeError, orjson.JSONEncodeError):
            return None
    if not isinstance(value, int | float | list | dict | set):
        return None
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    versions = [_version(one) for one in members if hasattr(one, "version")]
    return orjson.dumps([_assignment(name, module), *versions])


def _version(value: Any) -> str:
    return str(getattr(value, "version", "")) or repr(type(value))


def _assignment(name: str, module: Any) -> str:
    """The line of a module that gives a name its value."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return ""
    made = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [(node, node.targets if isinstance(node, ast.Assign) else [node.target]) for node in made]
    return "".join(ast.unparse(node) for node, names in targets if name in {ast.unparse(one) for one in names})


def _uses(one: Any, tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """The names in it that stand for something of its module, or around it."""
    around = dict(getattr(inspect.getmodule(one), "__dict__", {}))
    if inspect.isfunction(one):
        around |= {**one.__globals__, **inspect.getclosurevars(one).nonlocals}
    for name in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}):
        if name in around:
            yield name, around[name]


def _tree(one: Any) -> ast.AST:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
    except (OSError, TypeError, SyntaxError) as e:
        raise FlowError(
            f"the source of {getattr(one, '__qualname__', one)!r} cannot be found ({e}); write it in a file"
        ) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = []
            first = node.body[0]
            if len(node.body) > 1 and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGITS]
