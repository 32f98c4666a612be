"""Templates: text with slots, in Jinja2's immutable sandbox. A slot must be declared."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from myna.records import DataError, RequestError

LONGEST = 64 << 20  # characters of one turn
LARGEST, MOST_POWER = 2**63, 8  # of a number that is multiplied, and of an exponent
# Methods and filters that fill a text or a list up to any length.
PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "batch", "slice"})


def check_slots(turns: Sequence[tuple[str, str]], declared: Collection[str]) -> None:
    """Of (role, template). Raises DataError for a slot that no input fills, an input that no slot uses, and a template that does not
    parse."""
    from jinja2 import TemplateSyntaxError, meta

    used = set()
    for role, template in turns:
        try:
            used |= meta.find_undeclared_variables(_jinja().parse(template))
        except TemplateSyntaxError as e:
            raise DataError(f"the {role} turn, line {e.lineno}: {e.message}") from None
    if missing := sorted(used - set(declared)):
        raise DataError(f"{{{{ {missing[0]} }}}}: no such input is declared; declare it under inputs")
    if idle := sorted(set(declared) - used):
        raise DataError(f"inputs.{idle[0]}: no turn uses it")


def filled(template: str, values: Mapping[str, Any]) -> str:
    """Raises RequestError for what the values do to it."""
    from jinja2 import TemplateError

    try:
        text = _template(template).render(values)
    except (TemplateError, MemoryError) as e:
        raise RequestError(f"the prompt cannot be filled in: {e}", param="inputs") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as e:
        raise RequestError(f"the prompt cannot be filled in: {type(e).__name__}: {e}", param="inputs") from None
    if len(text) > LONGEST:
        raise RequestError(f"a turn of {len(text):,} characters is too long.", param="inputs")
    return text


@lru_cache(maxsize=256)
def _template(source: str) -> Any:
    return _jinja().from_string(source)


@cache
def _jinja() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Slots(ImmutableSandboxedEnvironment):
        """Nothing in it makes much of little: "x" * 10 ** 10 would be there before anybody could count it."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            small = operator != "**" or abs(right) <= MOST_POWER
            if isinstance(left, int | float) and isinstance(right, int | float) and small and abs(left) < LARGEST:
                return super().call_binop(context, operator, left, right)
            raise SecurityError(f"{operator} is for small numbers")

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return attr not in PADDING and super().is_safe_attribute(obj, attr, value)

    made = Slots(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    made.globals.clear()  # no range(10 ** 9), no cycler: a prompt is text with slots
    for name in PADDING & made.filters.keys():
        del made.filters[name]
    return made
