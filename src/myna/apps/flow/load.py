"""A flow from a person's own Python file. Loading it runs it, as `python FILE` would: never one that you have not read."""

import importlib.util
import linecache
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from myna.apps.flow.errors import FlowError, place, words
from myna.apps.flow.flow import Flow


def load(where: str) -> Flow[Any, Any]:
    """FILE.py:FLOW, or FILE.py where it has one flow. Raises FlowError, which names the line, where the file cannot be run."""
    file, _, name = where.partition(".py:")
    path = Path(file if file.endswith(".py") else f"{file}.py")
    if not path.is_file():
        raise FlowError(f"there is no file {path}; a flow is FILE.py:FLOW.")
    module = _module(path.resolve())
    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    own = {key: value for key, value in flows.items() if value.shape.function.__module__ == module.__name__}
    if name in flows:
        return flows[name]
    if name or len(own) != 1:
        raise FlowError(
            f"{path} has {f'no flow {name!r}; it has ' if name else ''}{', '.join(flows) or 'no flow'}; give {path}:FLOW."
        )
    return next(iter(own.values()))


def _module(path: Path) -> ModuleType:
    name = f"myna_flow_{path.stem}"
    linecache.checkcache(str(path))  # its source is hashed, and may have changed
    told = importlib.util.spec_from_file_location(name, path)
    assert told
    assert told.loader
    module = importlib.util.module_from_spec(told)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # its neighbours, as for `python FILE`
    try:
        told.loader.exec_module(module)
    except Exception as e:
        at = place(e, str(path))
        raise FlowError(f"{path} cannot be run: {words(e)}{f' ({at})' if at else ''}") from e
    return module
