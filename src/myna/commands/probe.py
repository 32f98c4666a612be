"""myna probe: what an endpoint does of what may be asked of it."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.text import Text

from myna.commands.options import folded, printable

if TYPE_CHECKING:
    from myna.provider.powers import Powers


def run(model: str, /, *, json: bool = False) -> None:
    """Try what an endpoint does: forms, tools, log-probabilities, several answers, seeds, counts. Eleven short calls. What is
    found is kept, and used by whatever asks this endpoint afterwards.

    Parameters
    ----------
    model
        A pulled model, http://HOST/v1#MODEL, ollama:MODEL, openai:MODEL.
    json
        Print one JSON object.
    """
    from myna.provider import powers
    from myna.provider.connect import connected
    from myna.provider.probe import probe

    with connected(model) as provider:
        found = asyncio.run(probe(provider))
        url = getattr(provider, "base_url", None)
    if json:
        print(orjson.dumps(asdict(found)).decode())
    else:
        _print(found)
    if url:  # after it was told: eleven calls are not lost because it cannot be kept
        kept = powers.write(powers.endpoint(url, provider.name), found)
        if not json:
            print(f"kept in {kept}")


def _print(found: "Powers") -> None:
    from myna.provider.probe import FORMS

    table = folded("tried", "held", "")
    for kind in FORMS:
        table.add_row(f"form: {kind}", *_row(kind in found.forms, found.refused.get(kind, "")))
    table.add_row("a tool called when it must be", *_row(found.tools, found.refused.get("tools", "")))
    table.add_row("arguments as the tool's schema has them", *_row(found.arguments))
    alternatives = f"of {found.logprobs} alternatives" if found.logprobs else found.refused.get("logprobs", "")
    table.add_row("log-probabilities", *_row(found.logprobs > 0, alternatives))
    table.add_row("two answers to one request", *_row(found.several, found.refused.get("several", "")))
    table.add_row("the same seed, the same answer", *_row(found.seed, found.refused.get("seed", "")))
    table.add_row("tokens counted", *_row(found.usage))
    Console(highlight=False, soft_wrap=True).print(table)


def _row(held: bool, said: str = "") -> tuple[str, Text]:
    return "yes" if held else "no", printable(said)
