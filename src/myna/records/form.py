"""What an answer must look like, and what it may call. No JSON Schema is read here: rooms above do that."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from myna.records.errors import RequestError

Kind = Literal["json", "schema", "regex", "choice", "grammar", "tags"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must look like.

    kind      json: any JSON object; schema: JSON that a JSON Schema allows; regex: text that matches all of an expression;
              choice: one of some texts; grammar: what a Lark grammar (llguidance's dialect) derives; tags: text in which
              after each of some triggers a schema holds (vLLM's and SGLang's structural_tag)
    source    JSON text of the schema, of the list of choices or of the structural tag; the expression; the grammar
    strict    every keyword of the schema is enforced, or the request refused; else what cannot be enforced is allowed while
              the answer is made, and looked at when it is finished
    param     the request's field that asked for it, as a dotted path; whoever asks elsewhere for the same asks for the same
    """

    kind: Kind
    source: str = ""
    strict: bool = True
    param: str = field(default="response_format", compare=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools an answer may call.

    mode       auto: the model decides; none: no tool; required: at least one call; named: the tool `name`, once
    parallel   whether there may be several calls
    """

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    parallel: bool = True

    def check(self, tools: frozenset[str]) -> "ToolChoice":
        """Itself, or RequestError where there is no such tool."""
        if self.mode == "named" and self.name not in tools:
            raise RequestError(
                f"tool_choice names {self.name!r}, which is not among the tools: {', '.join(sorted(tools)) or 'none'}.",
                param="tool_choice",
            )
        if self.mode == "required" and not tools:
            raise RequestError("tool_choice is 'required' and there are no tools.", param="tool_choice")
        return self


@dataclass(frozen=True, slots=True)
class Style:
    """How a model writes a call's arguments where it does not as one JSON object: `before` a name, `between` name and value,
    `after` a value, `comma` between two arguments.

    values    text: strings as they stand, and all else as JSON; python: literals; quoted: strings between two `quote`, lists and
              objects of such values with bare names, all else as JSON
    """

    values: Literal["text", "python", "quoted"]
    before: str = ""
    between: str = "="
    after: str = ""
    comma: str = ""
    quote: str = ""
