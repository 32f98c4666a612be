"""An agent drafted from a description: a file for a person to read. A model fills in a form whose tools are an allow-list; the file says
`reviewed: false`, and nothing runs it before somebody who has read it takes that line out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from myna.apps.agent.file import AgentFile
from myna.apps.prompt import Prompt, ask
from myna.apps.tools import Tool
from myna.provider import Provider
from myna.records import DataError, Json
from myna.records.language import is_chinese
from myna.trace import Trace

STEPS, TOKENS = (
    (4, 50),
    (10_000, 200_000),
)  # that a draft may give itself: a call, its result, another, an answer; and at most
TARGET = 60  # characters of what a right answer holds
HEAD = """---
inputs:
  description: string
  tools: {type: array, items: {type: object}}
sampling: {temperature: 0, max_tokens: 1500}
limits: {calls: 3}
---
"""
ENGLISH = """system:
You write the specification of an agent: a model that works on tasks with tools. Choose only the tools that it needs.
Write in the language of the description.

user:
What the agent is for: {{ description }}

The tools there are:
{{ tools }}

Answer with JSON: `about`, one sentence on what it is for; `instructions`, its system prompt, which says what to do, in which order, what it
must not do, and how the answer looks; `tools`, their names; `steps`, how many turns a task takes at most; `tokens`, how many tokens;
`cases`, three tasks to test it with, each with the few characters that the right answer must hold: a number or a name, and no sentence.
"""
CHINESE = """system:
你为一个智能体写说明书：它是一个借助工具完成任务的模型。只选它用得着的工具。全部用中文写。

user:
这个智能体的用途：{{ description }}

现有的工具：
{{ tools }}

用 JSON 回答：`about`，一句话说明用途；`instructions`，它的系统提示词，说清做什么、按什么顺序、不许做什么、答案是什么样子；
`tools`，工具的名字；`steps`，一个任务最多几轮；`tokens`，最多多少词元；
`cases`，三个用来测试的任务，各有正确答案里必须出现的几个字：一个数或一个名字，不是句子。
"""  # a small model writes in the language that it is asked in


async def drafted(
    name: str, description: str, known: Mapping[str, Tool], provider: Provider, trace: Trace | None = None
) -> str:
    """The file's text. Raises apps.prompt.ask.Refused where the model fills in no such form."""
    tools = [{"name": one.name, "effect": one.effect, "does": one.description} for one in known.values()]
    prompt = replace(
        Prompt.parse(HEAD + (CHINESE if is_chinese(description) else ENGLISH), "agent_draft"), output=form(known)
    )
    answer = await ask(prompt, {"description": description, "tools": tools}, provider, trace=trace)
    return written(name, answer.value, f"Drafted by {provider.name} from: {description}")


def form(known: Mapping[str, Tool]) -> Json:
    """What a draft is: JSON Schema."""
    case = {
        "type": "object", "required": ["task", "target"], "additionalProperties": False,
        "properties": {"task": {"type": "string", "minLength": 1}, "target": {"type": "string", "minLength": 1, "maxLength": TARGET}},
    }  # fmt: skip
    properties: Json = {
        "about": {"type": "string", "minLength": 1},
        "instructions": {"type": "string", "minLength": 20},
        "tools": {
            "type": "array",
            "items": {"enum": sorted(known)} if known else False,
            "maxItems": max(len(known), 0),
        },
        "steps": {"type": "integer", "minimum": STEPS[0], "maximum": STEPS[1]},
        "tokens": {"type": "integer", "minimum": TOKENS[0], "maximum": TOKENS[1]},
        "cases": {"type": "array", "items": case, "minItems": 1, "maxItems": 10},
    }
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def template(name: str, description: str, known: Mapping[str, Tool]) -> str:
    """A draft without a model: everything that can be said without one, and gaps."""
    value = {
        "about": description, "instructions": f"{description}\nSay what to do, in which order, and what the answer looks like.",
        "tools": sorted(known), "steps": 10, "tokens": 50_000, "cases": [{"task": "A task to test it with.", "target": "what the answer holds"}],
    }  # fmt: skip
    return written(name, value, "A template; nobody wrote it yet.")


def written(name: str, value: Mapping[str, Any], origin: str) -> str:
    """A draft as a file. Raises DataError where the file would not be read."""
    head = {
        "reviewed": False,
        "about": value["about"],
        "tools": list(dict.fromkeys(value["tools"])),
        "limits": {"steps": value["steps"], "tokens": value["tokens"], "seconds": 600},
        "cases": [{"task": one["task"], "target": one["target"], "check": "contains"} for one in value["cases"]],
    }
    comment = "\n".join(
        f"# {line}" for line in [*origin.splitlines(), "Read all of it. Then take out `reviewed: false`."]
    )
    body = _plain(value["instructions"])
    source = f"---\n{comment}\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=120)}---\nsystem:\n{body}\n\nuser:\n{{{{ task }}}}\n"
    try:
        AgentFile.parse(source, name)
    except DataError as e:
        raise DataError(f"the draft cannot be read back as an agent's file: {e}") from None
    return source


def _plain(text: str) -> str:
    """Instructions that are text and no template, and begin no turn of their own."""
    lines = text.replace("{{", "{ {").replace("{%", "{ %").replace("{#", "{ #").splitlines()
    return "\n".join(
        f" {line}" if line.strip() in ("system:", "user:", "assistant:") else line for line in lines
    ).strip()
