"""Reading a JSON object field by field, so that every complaint names the field it is about."""

from collections.abc import Callable
from typing import Any, TypeVar

from myna.records.errors import DataError

T = TypeVar("T")
MISSING = object()


class Fields:
    """A JSON object being read. Fields are taken one by one; what nobody took is `rest()`.

    `path` is the dotted path of this object inside its row ("messages.3"), "" for the row itself.
    """

    def __init__(self, value: object, path: str = ""):
        if not isinstance(value, dict):
            raise DataError(f"{path or 'row'}: expected an object, found {kind_of(value)}")
        self._left: dict[str, Any] = dict(value)
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, *types: type, default: Any = MISSING) -> Any:
        """The field's value, checked to be one of `types`. null counts as absent."""
        value = self._left.pop(name, None)
        if value is None:
            if default is MISSING:
                raise DataError(f"{self.at(name)}: missing")
            return default
        # bool is an int to isinstance, but `"weight": true` is a mistake worth naming.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join(kind_of_type(t) for t in types)
            raise DataError(f"{self.at(name)}: expected {wanted}, found {kind_of(value)}")
        return value

    def take_list(self, name: str, read: Callable[[object, str], T], *, required: bool = False) -> tuple[T, ...]:
        """A list whose items are read by `read(item, path)`; absent is empty unless `required`."""
        items = self.take(name, list, default=MISSING if required else [])
        return tuple(read(item, f"{self.at(name)}.{i}") for i, item in enumerate(items))

    def rest(self) -> dict[str, Any]:
        """What nobody took, merged with the explicit `meta` object: nothing a user wrote is lost."""
        meta = self.take("meta", dict, default={})
        if both := sorted(meta.keys() & self._left.keys()):
            raise DataError(f"{self.at('meta')}.{both[0]}: also given beside meta; keep one of them")
        return {**self._left, **meta}


def kind_of(value: object) -> str:
    return "null" if value is None else kind_of_type(type(value))


def kind_of_type(t: type) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
    }
    return names.get(t, t.__name__)
