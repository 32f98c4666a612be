"""An agent as a file: a prompt file with a few keys more, beside a tools.py of yours.

    ---
    about: Keeps the shop's books.
    tools: [query, change, add_note]     # of tools.py; nothing else is there
    helpers: [reader.md]                 # agents in the same folder
    limits: {steps: 12, tokens: 40000, seconds: 300}
    sampling: {temperature: 0}
    inputs: {letter: {type: string, untrusted: true, optional: true}}
    plan: true
    memory: true
    cases: [{task: "How many albums has AC/DC?", target: "2", check: contains}]
    ---
    system:
    You are the clerk of a music shop.

    user:
    {{ task }}  {{ letter }}

`task` is declared by itself; without a user turn it is the whole of it. An untrusted input that is given taints the run.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, get_args

import yaml

from myna.apps.agent.agent import Agent, Speech
from myna.apps.agent.memory import Memory
from myna.apps.agent.session import Session
from myna.apps.prompt import Prompt, explain
from myna.apps.prompt.file import HEAD, LARGEST, word
from myna.apps.prompt.file import KEYS as OF_PROMPTS
from myna.apps.tools import Tool
from myna.apps.tools.tool import NAME
from myna.checks import named
from myna.records import DataError, Json
from myna.records.fence import RULE
from myna.records.fields import Fields

OWN = ("about", "tools", "helpers", "stall", "speech", "plan", "memory", "window", "cases", "reviewed")
DEEPEST = 4  # helpers of helpers
LONGEST_NAME = 64  # characters


@dataclass(frozen=True, slots=True)
class Case:
    """A task, and what the answer is compared with; without a target it passes when the run is done."""

    inputs: Mapping[str, Any]
    target: Any
    check: str | None


@dataclass(frozen=True)
class AgentFile:
    """What a file says. `prompt` is what a prompt file would be; `reviewed` is False for a draft that nobody has read."""

    name: str
    source: str
    prompt: Prompt
    folder: Path
    about: str
    tools: tuple[str, ...]
    helpers: tuple["AgentFile", ...]
    stall: int
    speech: Speech | None
    plan: bool
    memory: bool
    window: int | None
    cases: tuple[Case, ...]
    reviewed: bool

    @classmethod
    def read(cls, path: Path | str, depth: int = 0) -> Self:
        """Raises DataError naming the file and the key."""
        path = Path(path)
        try:
            if path.stat().st_size > LARGEST:
                raise DataError(f"an agent's file of more than {LARGEST >> 20} MiB")
            return cls.parse(path.read_text(encoding="utf-8-sig"), path.stem, path.parent, depth)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file; `myna agent new` drafts one") from None
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from None
        except DataError as e:
            raise DataError(f"{path}: {str(e).removeprefix(f'{path}: ')}") from None

    @classmethod
    def parse(cls, source: str, name: str = "agent", folder: Path = Path(), depth: int = 0) -> Self:
        """From a file's text. Raises DataError."""
        if not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
            raise DataError(
                f"{name!r}: an agent's name, which is its file's, is 1 to {LONGEST_NAME} characters that can be shown"
            )
        head, body = _parted(source.replace("\r\n", "\n"))
        f = Fields({key: head.pop(key) for key in OWN if key in head})
        _refuse_unknown(head)
        prompt = _prompt(head, body, name, folder)
        speech = f.take("speech", str, default=None)
        if speech is not None and speech not in get_args(Speech):
            raise DataError(f"speech: {speech!r} is none of {', '.join(get_args(Speech))}")
        return cls(
            name=name, source=source, prompt=prompt, folder=folder,
            about=f.take("about", str, default=""),
            tools=f.take_list("tools", word),
            helpers=tuple(cls._helper(one, folder, depth) for one in f.take_list("helpers", word)),
            stall=f.take("stall", int, default=3), speech=speech,
            plan=f.take("plan", bool, default=False), memory=f.take("memory", bool, default=False),
            window=f.take("window", int, default=None), cases=f.take_list("cases", _case(prompt)),
            reviewed=f.take("reviewed", bool, default=True),
        )  # fmt: skip

    @classmethod
    def _helper(cls, file: str, folder: Path, depth: int) -> Self:
        place = folder / file
        if not NAME.fullmatch(place.stem):
            raise DataError(
                f"helpers: {file}: a helper is a tool of its file's name, and endpoints take 1 to 64 letters a-z, digits, _ and -; rename it"
            )
        if Path(file).is_absolute() or not place.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"helpers: {file} is not in the agent's own folder")
        if depth >= DEEPEST:
            raise DataError(f"helpers: {file}: helpers of helpers, {DEEPEST} deep; do they call each other?")
        return cls.read(place, depth + 1)

    @property
    def version(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def begin(
        self, given: Mapping[str, Any], known: Mapping[str, Tool], memory: Memory | None = None
    ) -> tuple[Agent, Session]:
        """The agent, and a session with its task. `known`: tools by name, of which it gets those that its file names. Raises
        RequestError for wrong inputs, DataError for a tool that is not there."""
        messages = explain(self.prompt, given).conversation.messages
        system = messages[0].text if messages[0].role == "system" else ""
        rest = messages[1:] if messages[0].role == "system" else messages
        foreign = any(one.untrusted and given.get(name) is not None for name, one in self.prompt.inputs.items())
        session = Session([*rest], tainted=foreign)
        return self._agent(system.removesuffix(RULE).strip(), known, memory), session

    def _agent(self, system: str, known: Mapping[str, Tool], memory: Memory | None) -> Agent:
        for name in self.tools:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
                raise DataError(f"{self.name}: tools: there is no tool {name!r} in tools.py; {hint}")
        return Agent(
            self.name, system, tuple(known[name] for name in self.tools), self.prompt.limits, self.prompt.sampling, self.speech, self.stall,
            self.about, tuple(one.helper(known) for one in self.helpers), self.plan, memory if self.memory else None, self.window,
        )  # fmt: skip

    def helper(self, known: Mapping[str, Tool]) -> Agent:
        """As a helper of another: it has its system prompt, and its task is what it is called with."""
        agent, _ = self.begin({"task": ""}, known)
        return agent


def _parted(source: str) -> tuple[Json, str]:
    found = HEAD.match(source)
    try:
        head = (yaml.safe_load(found[1]) if found else None) or {}
    except yaml.YAMLError as e:
        raise DataError(f"the head is not YAML: {e}") from None
    if not isinstance(head, dict):
        raise DataError("the head is no list of keys")
    return dict(head), source[found.end() :] if found else source


def _refuse_unknown(head: Json) -> None:
    """Of what is left for the prompt, what no prompt has either; and an output, which calls of tools have no room for."""
    known = [key for key in (*OWN, *OF_PROMPTS) if key not in ("output", "checks", "hidden")]
    for key in head:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise DataError(
                f"{key}: an agent's head has no such key" + (f"; did you mean {close[0]}?" if close else "")
            )


def _prompt(head: Json, body: str, name: str, folder: Path) -> Prompt:
    inputs = head.get("inputs") or {}
    if isinstance(inputs, dict):
        head["inputs"] = {"task": "string", **inputs}
    if "\nuser:" not in f"\n{body}":
        start = "" if "\nsystem:" in f"\n{body}" else "system:\n"
        body = f"{start}{body.strip()}\n\nuser:\n{{{{ task }}}}"
    return Prompt.parse(f"---\n{yaml.safe_dump(head, allow_unicode=True)}---\n{body}", name, folder)


def _case(prompt: Prompt) -> Any:
    def read(value: object, path: str) -> Case:
        f = Fields(value, path)
        inputs = f.take("inputs", dict, default={})
        if task := f.take("task", str, default=None):
            inputs = {"task": task, **inputs}
        target = f.take("target", str, int, float, bool, default=None)
        check = f.take("check", str, default=None if target is None else "contains")
        if unknown := f.rest():
            raise DataError(f"{f.at(next(iter(unknown)))}: a case has task, inputs, target and check")
        if check is not None:
            named(check)
        prompt.check(inputs, f.at("inputs"))
        return Case(inputs, target, check)

    return read
