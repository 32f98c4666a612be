"""config.json read field by field: a missing or absurd value is an error that names the field."""

from collections.abc import Callable
from typing import Any

from myna.records import ModelDirError

# Far above any model there is; below what would make us enumerate layers or build tables for ever.
LIMITS = {"layers": 1024, "experts": 1024, "length": 1 << 22, "size": 1 << 24}


class Config:
    """A config.json. `where` names it in errors, for example "models/tiny/config.json"."""

    def __init__(self, fields: dict[str, Any], where: str = "config.json"):
        self.fields = fields
        self.where = where

    def has(self, key: str) -> bool:
        """Is the field there and not null?"""
        return self.fields.get(key) is not None

    def filled(self, **defaults: Any) -> "Config":
        """The same config with these values where a field is missing or null."""
        return Config(
            defaults | {k: v for k, v in self.fields.items() if v is not None or k not in defaults}, self.where
        )

    def integer(self, key: str, default: int | None = None, most: str = "size") -> int:
        """A whole number from 1 to LIMITS[most]."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LIMITS[most]:
            raise self.error(key, f"must be a whole number from 1 to {LIMITS[most]}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
            raise self.error(key, "must be a number above 0")
        return float(value)

    def maybe(self, key: str, default: float | None = None) -> float | None:
        """A number above 0, or None where the field is null, or missing without a default."""
        missing = key not in self.fields and default is None
        return None if missing or (key in self.fields and not self.has(key)) else self.number(key, default)

    def maybe_integer(self, key: str, default: int | None = None) -> int | None:
        """A whole number from 1, or None where the field is null, or missing without a default."""
        missing = key not in self.fields and default is None
        return None if missing or (key in self.fields and not self.has(key)) else self.integer(key, default)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "must be a string")
        return value

    def integers(self, key: str, most: str = "layers") -> tuple[int, ...]:
        """A list of whole numbers from 0; empty where missing."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, int) and 0 <= v <= LIMITS[most] for v in value):
            raise self.error(key, "must be a list of whole numbers")
        return tuple(value)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        value = self._get(key, None)
        if not isinstance(value, list) or not all(isinstance(v, int | float) and 0 < v < 1e30 for v in value):
            raise self.error(key, "must be a list of numbers above 0")
        if len(value) != length:
            raise ModelDirError(
                f"{self.where}: {key} has {len(value)} numbers; half the rotated head size is {length}."
            )
        return tuple(float(v) for v in value)

    def below(self, key: str) -> "Config":
        """The object under `key`, empty where it is missing or null."""
        value = self.fields.get(key) or {}
        if not isinstance(value, dict):
            raise self.error(key, "must be an object")
        return Config(value, f"{self.where}: {key}")

    def refuse(self, key: str, *ok: Any) -> None:
        """ModelDirError unless the field is missing, null or one of `ok`: we would compute something else."""
        if self.has(key) and self.fields[key] not in ok:
            raise ModelDirError(f"{self.where}: {key} is {self.fields[key]!r}, which is not supported.")

    def windowed(self, layers: int, default: Callable[[int], bool]) -> tuple[bool, ...]:
        """Which layers have the sliding window: what `layer_types` says, or else `default` of the layer's number."""
        kinds = self._get("layer_types", None)
        if kinds is None:
            return tuple(default(layer) for layer in range(layers))
        if not isinstance(kinds, list) or not set(map(str, kinds)) <= {"sliding_attention", "full_attention"}:
            raise self.error("layer_types", "must list sliding_attention or full_attention for every layer")
        if len(kinds) != layers:
            raise ModelDirError(f"{self.where}: layer_types names {len(kinds)} layers; num_hidden_layers is {layers}.")
        return tuple(kind == "sliding_attention" for kind in kinds)

    def error(self, key: str, must: str) -> ModelDirError:
        if key not in self.fields:
            return ModelDirError(f"{self.where}: {key} is missing; it {must}.")
        return ModelDirError(f"{self.where}: {key} is {str(self.fields[key])[:80]!r}; it {must}.")

    def _get(self, key: str, default: Any) -> Any:
        value = self.fields.get(key)
        return default if value is None else value
