"""What calls cost: a YAML file that the user edits, dollars (or whatever money) per million tokens.

    currency: USD
    prices:
      - {model: "gpt-5*", input: 1.25, cached: 0.125, output: 10}
      - {model: "*", input: 0, output: 0}           # our own machine

The first row whose pattern fits a model's name holds. Without a row the cost is unknown, which is not 0.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from myna.records import DataError, Usage
from myna.records.fields import Fields

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Per million tokens. `cached` are prompt tokens that were not computed again; as dear as others if left out."""

    model: str
    input: float
    output: float
    cached: float

    @classmethod
    def from_json(cls, value: object, path: str) -> "Price":
        f = Fields(value, path)
        model, input = f.take("model", str), float(f.take("input", int, float))
        output, cached = float(f.take("output", int, float)), float(f.take("cached", int, float, default=input))
        if unknown := f.rest():
            raise DataError(f"{f.at(next(iter(unknown)))}: a price has model, input, output and cached")
        if not all(0 <= price < float("inf") for price in (input, output, cached)):  # NaN, too, fails
            raise DataError(f"{path}: a price is 0 or more")
        return cls(model, input, output, cached)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by model, in order."""

    rows: tuple[Price, ...] = ()
    currency: str = "USD"

    @classmethod
    def read(cls, path: Path) -> "Prices":
        """Raises DataError naming the file and the field. No file is no prices."""
        import yaml

        try:
            f = Fields(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            prices = cls(f.take_list("prices", Price.from_json), f.take("currency", str, default="USD"))
            if unknown := f.rest():
                raise DataError(f"{next(iter(unknown))}: a price file has prices and currency")
            return prices
        except FileNotFoundError:
            return cls()
        except yaml.YAMLError as e:
            mark, what = getattr(e, "problem_mark", None), getattr(e, "problem", None) or e
            raise DataError(f"{path}{f':{mark.line + 1}' if mark else ''}: {what}") from None
        except (DataError, UnicodeDecodeError, OSError) as e:
            raise DataError(f"{path}: {e}") from None

    def of(self, model: str) -> Price | None:
        return next((row for row in self.rows if fnmatchcase(model, row.model)), None)

    def cost(self, model: str, usage: Usage) -> float | None:
        """None where nobody said what this model costs."""
        if (price := self.of(model)) is None:
            return None
        fresh = usage.prompt_tokens - usage.cached_tokens
        spent = fresh * price.input + usage.cached_tokens * price.cached + usage.completion_tokens * price.output
        return spent / MILLION
