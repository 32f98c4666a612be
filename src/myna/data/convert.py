"""Which format a row is in, told from the row itself.

A format is told by the fields it needs and their types. The first of FORMATS that fits is it: the more particular ones
come first. A file's first row speaks for all of it, so that the errors of later rows name the field at fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from myna.data import formats
from myna.data.formats import Record
from myna.records import DataError
from myna.records.fields import kind_of, kind_of_type

Needs = dict[str, tuple[type, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """`needs`: the fields without which a row is not in this format; `also`: what else must be so."""

    name: str
    needs: Needs
    read: Callable[[object, str], list[Record]]
    also: Callable[[dict[str, object]], bool] = lambda row: True

    def lacks(self, row: dict[str, object]) -> list[str]:
        """What the row would need to be in this format, in words."""
        missing = []
        for name, types in self.needs.items():
            if row.get(name) is None:
                missing.append(f"{name!r} is not there")
            elif not isinstance(row[name], types):
                wanted = " or ".join(map(kind_of_type, types))
                missing.append(f"{name!r} is {kind_of(row[name])}, not {wanted}")
        return missing


def _is_hh(row: dict[str, object]) -> bool:
    return all(str(row[side]).lstrip().startswith("Human:") for side in ("chosen", "rejected"))


def _has_none_of(*names: str) -> Callable[[dict[str, object]], bool]:
    """So that what a row is about is never left behind in `meta`: an exam question is not a question without its choices."""
    return lambda row: all(row.get(name) in (None, "", []) for name in names)


def _has_one_of(*names: str) -> Callable[[dict[str, object]], bool]:
    return lambda row: any(row.get(name) is not None for name in names)


SAID = (str, list, dict)
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("messages", {"messages": (list,)}, formats.messages),
        Format(
            "openai_preference",
            {"input": (dict,), "preferred_output": (list,), "non_preferred_output": (list,)},
            formats.openai_preference,
        ),
        Format("sharegpt", {"conversations": (list,)}, formats.sharegpt),
        Format("hh", {"chosen": (str,), "rejected": (str,)}, formats.hh, _is_hh),
        Format("preference", {"chosen": SAID, "rejected": SAID}, formats.preference),
        Format("judged", {"prompt": SAID, "completion": SAID, "label": (bool,)}, formats.judged),
        Format("self_instruct", {"instruction": (str,), "instances": (list,)}, formats.self_instruct),
        Format("alpaca", {"instruction": (str,), "output": (str, list)}, formats.alpaca),
        Format("dolly", {"instruction": (str,), "response": (str,)}, formats.alpaca),
        Format("completion", {"prompt": SAID, "completion": SAID}, formats.prompted),
        Format("response", {"prompt": SAID, "response": SAID}, formats.prompted),
        Format(
            "question",
            {"question": (str,), "answer": (str,)},
            formats.question,
            _has_none_of("choices", "options", "context"),
        ),
        Format("oasst", {"prompt": (dict,), "message_tree_id": (str,)}, formats.oasst),
        Format("chatgpt", {"mapping": (dict,)}, formats.exported),
        Format("claude", {"chat_messages": (list,)}, formats.exported),
        Format("matched", {"positive": (str,)}, formats.matched, _has_one_of("query", "anchor")),
        Format("labelled", {"text": (str,), "label": (str, int, bool)}, formats.labelled),
        Format("targeted", {"text": (str,), "target": (str, int, bool)}, formats.labelled),
        Format("text", {"text": (str,)}, formats.text, _has_none_of("code", "label", "answer", "output", "response")),
    )
}


def tell(row: object) -> Format:
    """The row's format. Raises DataError saying what the row has, and what the nearest formats miss."""
    if not isinstance(row, dict):
        raise DataError(f"row: expected an object, found {kind_of(row)}")
    lacking = {name: format.lacks(row) for name, format in FORMATS.items()}
    for name, missing in lacking.items():
        if not missing and FORMATS[name].also(row):
            return FORMATS[name]
    if unfit := [name for name, missing in lacking.items() if not missing]:
        raise DataError(
            f"looks like {unfit[0]}, but has fields that would be left behind. Name it with --from to accept that."
        )
    near = sorted(lacking, key=lambda name: len(lacking[name]) / len(FORMATS[name].needs))[:3]
    why = "; ".join(f"{name}: {', '.join(lacking[name])}" for name in near)
    has = ", ".join(sorted(row)[:12]) or "none"
    raise DataError(
        f"no format fits a row with the fields {has}. Nearest: {why}. Name it with --from, or rename the fields."
    )


def named(name: str) -> Format:
    """Raises DataError naming the nearest."""
    if name in FORMATS:
        return FORMATS[name]
    near = get_close_matches(name, FORMATS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"--from {name!r} is not one of {', '.join(FORMATS)}{hint}")


def convert(row: object, format: Format) -> list[Record]:
    """The row's records. Raises DataError naming the field."""
    formats.refuse_unseen(row)
    return format.read(row, "")
