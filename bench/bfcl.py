"""Function calling on the Berkeley leaderboard's questions (Patil et al. 2025): does the answer call what it should?

    python bench/bfcl.py --data ../shared/data/bfcl --model qwen2.5-coder-1.5b-instruct --limit 20

One row a category: the share of answers whose calls agree with an accepted answer, as abstract syntax: names equal, every
required argument there, every value among the accepted ones, nothing else. Strings are compared without case, blanks and
punctuation, as the leaderboard does; calls of one answer in any order. The irrelevance categories count answers without calls,
as the leaderboard does; "invented" says in how many answers the text writes a call that is none, of a tool that nobody offered.

unbound   the model writes as it likes (tool_choice auto)
bound     the same, held to the schemas (every tool strict); where a call is due, tool_choice is required
"""

import argparse
import asyncio
import json
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import jsonschema_rs

from myna.provider import Provider, complete
from myna.provider.local import Loading, load
from myna.records import Conversation, Json, MynaError, Reply, Sampling, ToolChoice, jsonl

CATEGORIES = ("simple_python", "multiple", "parallel", "live_multiple", "irrelevance", "live_irrelevance")
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None, "list": "array", "bool": "boolean"}


def schema_of(value: Any) -> Any:
    """The data's types are Python's; a schema has JSON's."""
    if isinstance(value, list):
        return [schema_of(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    mended = {key: schema_of(item) for key, item in value.items() if key not in ("type", "optional", "default")}
    if isinstance(kind, str):
        return mended | ({"type": TYPES.get(kind, kind)} if TYPES.get(kind, kind) else {})
    return mended | ({"type": schema_of(kind)} if kind is not None else {})


def tools_of(functions: list[Json], strict: bool) -> tuple[Json, ...]:
    """The leaderboard's functions as OpenAI's tools; their names may have only letters, digits, "_" and "-"."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": safe(f["name"]),
                "description": f["description"],
                "parameters": schema_of(f["parameters"]) | ({"additionalProperties": False} if strict else {}),
            }
            | ({"strict": True} if strict else {}),
        }
        for f in functions
    )


def safe(name: str) -> str:
    return re.sub(r"[^\w-]", "_", name)


def rows(data: Path, category: str, limit: int) -> Iterator[tuple[Json, list[Json]]]:
    """(question, accepted calls; none where there should be no call)."""
    questions = [row for _, row in jsonl.read_rows(data / f"{category}.jsonl.gz")]
    answers: Any = {}
    if (path := data / f"{category}_answer.jsonl.gz").exists():
        answers = {row["id"]: row["ground_truth"] for _, row in jsonl.read_rows(path)}  # type: ignore[index]
    step = max(1, len(questions) // limit) if limit else 1
    for row in questions[::step][: limit or None]:
        yield row, answers.get(row["id"], [])


def same(value: Any, accepted: Any) -> bool:
    if isinstance(value, str) and isinstance(accepted, str):
        return re.sub(r"[ ,./\-_*^()]", "", value).lower() == re.sub(r"[ ,./\-_*^()]", "", accepted).lower()
    if isinstance(value, list) and isinstance(accepted, list):
        return len(value) == len(accepted) and all(map(same, value, accepted))
    if isinstance(value, dict) and isinstance(accepted, dict):  # each key with its accepted values
        return all(any(same(value.get(k), a) for a in values) or (k not in value and "" in values) for k, values in
                   accepted.items()) and value.keys() <= accepted.keys()  # fmt: skip
    return value == accepted and isinstance(value, bool) == isinstance(accepted, bool)


def agrees(name: str, arguments: Any, accepted: Json) -> bool:
    """Whether one call is one of the accepted. "" among the accepted values: the argument may be left out."""
    ((wanted, values),) = accepted.items()
    if safe(wanted) != name or not isinstance(arguments, dict) or not arguments.keys() <= values.keys():
        return False
    return all(
        any(same(arguments[key], one) for one in options) if key in arguments else "" in options
        for key, options in values.items()
    )


def is_right(reply: Reply, accepted: list[Json]) -> bool:
    calls = []
    for call in reply.message.tool_calls:
        try:
            calls.append((call.name, json.loads(call.arguments)))
        except ValueError:
            return False
    if len(calls) != len(accepted):
        return False
    orders = permutations(accepted) if len(accepted) <= 6 else [tuple(accepted)]
    return any(all(agrees(*call, one) for call, one in zip(calls, order, strict=True)) for order in orders)


def invents(reply: Reply) -> bool:
    """Whether the text writes a call, which is none: it names no tool that was offered."""
    return not reply.message.tool_calls and re.search(r'"(arguments|parameters)"\s*:', reply.text) is not None


def fits(reply: Reply, tools: tuple[Json, ...]) -> list[bool]:
    """For each call, whether its arguments are what the schema allows."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    found = []
    for call in reply.message.tool_calls:
        try:
            found.append(
                call.name in schemas and jsonschema_rs.is_valid(schemas[call.name], json.loads(call.arguments))
            )
        except ValueError:
            found.append(False)
    return found


async def ask(
    provider: Provider, row: Json, accepted: list[Json], bound: bool
) -> tuple[tuple[Json, ...], Reply | None]:
    """(the tools of a question, its answer). None: it was refused."""
    tools = tools_of(row["function"], strict=bound)
    talk = Conversation.from_json({"messages": row["question"][0], "tools": list(tools)})
    choice = ToolChoice("required") if bound and accepted else None
    try:
        return tools, await complete(provider, talk, Sampling(temperature=0.0, max_tokens=256, tool_choice=choice))
    except MynaError as e:
        print(f"    {row['id']}: {str(e)[:160]}", flush=True)
        return tools, None


async def measure(provider: Provider, data: Path, category: str, limit: int, bound: bool) -> None:
    """One row of the table. All questions are asked at once: an answer does not depend on its company."""
    asked = [*rows(data, category, limit)]
    answers = await asyncio.gather(*(ask(provider, row, accepted, bound) for row, accepted in asked))
    right = count = calls = valid = cut = invented = 0
    for (_, accepted), (tools, reply) in zip(asked, answers, strict=True):
        if reply is None:
            continue
        count += 1
        right += is_right(reply, accepted)
        invented += invents(reply)
        is_cut = reply.candidates[0].finish_reason == "length"
        fit = [] if is_cut else fits(reply, tools)
        cut, calls, valid = cut + is_cut, calls + len(fit), valid + sum(fit)
    share = f"{valid}/{calls}" if calls else "-"
    how = "bound" if bound else "unbound"
    figures = (count, f"{100 * right / max(count, 1):.1f} %", invented, share, cut, len(asked) - count)
    print(f"| {category} | {how} | {' | '.join(map(str, figures))} |", flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, default=Path("../shared/data/bfcl"))
    flags.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    flags.add_argument("--limit", type=int, default=20, help="questions of each category, evenly spread; 0 takes all")
    flags.add_argument("--only", choices=CATEGORIES, action="append")
    args = flags.parse_args()
    provider = load(args.model, Loading(kv_gb=0.5))
    print("| category | calls | questions | right | invented | arguments valid | cut | refused |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for category in args.only or CATEGORIES:
        for bound in (False, True):
            asyncio.run(measure(provider, args.data, category, args.limit, bound))
    provider.close()


if __name__ == "__main__":
    main()
