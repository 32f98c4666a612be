"""How many schemas of the JSON Schema Test Suite are enforced, and how exactly, beside bare llguidance.

    python bench/schema_suite.py ../shared/data/json_schema_test_suite

An instance can be generated if some text of an equal value can: its members in some order, 1.0 as 1. A schema is exact if all
its valid instances can be generated and none of its invalid ones.
"""

import gzip
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from myna.forms.answer import answer
from myna.forms.compiler import LIMITS
from myna.forms.matcher import Matcher

DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
STOP = 256
MOST_ORDERS = 800
# Says that formats are annotations; optional/format/* says what they allow, which is what we enforce.
ANNOTATIONS = "format.json"


class Bytes:
    """A vocabulary of the 256 bytes."""

    is_tokenizer_wrapper = True
    eos_token_id, bos_token_id, special_token_ids = STOP, None, (STOP,)
    tokens = (*(bytes([i]) for i in range(256)), b"<stop>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


BYTES: Any = Bytes()
WORDS = LLTokenizer(BYTES)


def rows(folder: Path, draft: str) -> Iterator[dict[str, Any]]:
    """The suite's schemas with their tests, each schema saying which draft it is."""
    with gzip.open(folder / f"{draft}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["file"] != ANNOTATIONS:
                if isinstance(row["schema"], dict):
                    row["schema"] = {"$schema": DRAFTS[draft], **row["schema"]}
                yield row


def bare(schema: Any) -> Matcher | None:
    """llguidance by itself; None where it refuses."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    except ValueError:
        return None
    return _matcher(LLMatcher(WORDS, grammar, log_level=0))


def ours(schema: Any) -> Matcher | None:
    """None where the schema is refused."""
    found = answer({"do": "lower", "kind": "schema", "source": json.dumps(schema), "strict": True, "special": {}})
    if "error" in found:
        assert "bug" not in found, (schema, found)
        return None
    return _matcher(LLMatcher(WORDS, LLMatcher.grammar_from_lark(found["lark"]), log_level=0, limits=LIMITS))


def _matcher(grammar: LLMatcher) -> Matcher | None:
    return None if grammar.is_error() else Matcher(grammar, STOP + 1)


def generates(matcher: Matcher, text: str) -> bool:
    """Whether every byte is allowed by the mask before it, and a stop after the last. The matcher stays where it was."""
    taken, mask = 0, np.zeros(-(-(STOP + 1) // 32), np.uint32)
    for byte in (*text.encode("utf-8", "surrogatepass"), STOP):
        mask[:] = 0
        if matcher.complete:
            allowed = byte == STOP
        else:
            matcher.fill(mask)
            allowed = bool(mask[byte // 32] >> np.uint32(byte % 32) & np.uint32(1))
        if not allowed or byte == STOP or not matcher.advance(byte):
            break
        taken += 1
    if taken:
        matcher.rollback(taken)
    return allowed and byte == STOP


def texts(value: Any) -> Iterator[str]:
    """Texts of values equal to this one."""
    for same in itertools.islice(_equal(value), MOST_ORDERS):
        yield json.dumps(same, ensure_ascii=False)


def _equal(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for order in itertools.permutations(value):
            for inner in itertools.product(*([*_equal(value[name])] for name in order)):
                yield dict(zip(order, inner, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*([*_equal(item)] for item in value)))
    else:
        whole = isinstance(value, float) and value == int(value)
        yield from (int(value), value) if whole else (value,)


@dataclass
class Tally:
    """What became of a draft's schemas. An instance is (file, schema's description, test's description)."""

    schemas: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    impossible: int = 0  # schemas that allow nothing, refused with these words
    exact: int = 0
    wrongly_allowed: list[tuple[str, str, str]] = field(default_factory=list)
    wrongly_forbidden: list[tuple[str, str, str]] = field(default_factory=list)


def measure(folder: Path, draft: str, compile: Callable[[Any], Matcher | None]) -> Tally:
    tally = Tally()
    for row in rows(folder, draft):
        tally.schemas += 1
        matcher = compile(row["schema"])
        if matcher is None and not any(test["valid"] for test in row["tests"]):
            tally.impossible += 1  # nothing valid is known, nothing can be generated
        elif matcher is None:
            tally.refused.append((row["file"], row["description"]))
        else:
            wrong = [test for test in row["tests"] if _can(matcher, test["data"]) != test["valid"]]
            tally.exact += not wrong
            for test in wrong:
                found = tally.wrongly_forbidden if test["valid"] else tally.wrongly_allowed
                found.append((row["file"], row["description"], test["description"]))
    return tally


def _can(matcher: Matcher, value: Any) -> bool:
    return any(generates(matcher, text) for text in texts(value))


if __name__ == "__main__":
    print(f"{'':14}{'':10}  schemas  accepted        exact  instances wrongly allowed  wrongly forbidden")
    for draft, (name, compile) in itertools.product(DRAFTS, {"llguidance": bare, "ours": ours}.items()):
        t = measure(Path(sys.argv[1]), draft, compile)
        taken = t.schemas - len(t.refused) - t.impossible
        share = f"{taken} ({taken / t.schemas:.0%})"
        wrong = f"{len(t.wrongly_allowed):26} {len(t.wrongly_forbidden):18}"
        print(f"{draft:14}{name:10} {t.schemas:8}  {share:>9} {f'{t.exact} ({t.exact / t.schemas:.0%})':>12} {wrong}")
