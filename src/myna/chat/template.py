"""Chat templates, run as what they are: programs out of somebody else's model file.

Jinja2's immutable sandbox keeps them from Python's internals. On top of it, only the filters, tests, methods and globals
that chat templates use exist; everything else is refused by name; and a rendering is bounded in time and size (limits.py).
The environment is Hugging Face's otherwise: trim_blocks, lstrip_blocks, loop controls, `raise_exception`, `strftime_now`,
a `tojson` that leaves text readable, the `generation` tag.
"""

# ruff: noqa: N802  jinja2 names its visitors after its nodes

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, cast

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes, pass_context, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from myna.chat.limits import Budget, LimitError, budget, check_operands, check_string_call, measure, spending
from myna.chat.traced import MARKUP, TEXT, Part, Traced
from myna.records import ChatError, RequestError

MAX_SOURCE = 256 * 1024  # the longest in use is about 20 kB

_FILTERS = """
    abs capitalize count d default dictsort first float groupby int items join last length list lower map max min
    reject rejectattr replace reverse round select selectattr sort string sum title trim unique upper wordcount
""".split()
_STRING_METHODS = """
    capitalize count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric
    isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition
    rsplit rstrip split splitlines startswith strip title upper
""".split()
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_STRING_METHODS),
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"count", "index", "copy"}),
    tuple: frozenset({"count", "index"}),
}
_FORBIDDEN = (
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.ScopedEvalContextModifier,
    nodes.EvalContextModifier,
)


class Refusal(TemplateError):
    """What a template says through raise_exception: the conversation does not suit it."""


class ChatTemplate:
    """A compiled template. Raises ChatError if `source` is no template, or uses what no chat template needs.

    `clock` gives `strftime_now` its time. Safe to render from many threads.
    """

    def __init__(self, source: str, clock: Callable[[], datetime] = datetime.now):
        if len(source) > MAX_SOURCE:
            raise ChatError(f"chat template: {len(source):,} characters; at most {MAX_SOURCE:,} are read")
        self.source = source
        env = _Environment(clock)
        try:
            tree = env.parse(source)
            _check(tree)
            self.variables = meta.find_undeclared_variables(tree)
            self._template = env.from_string(source)
        except TemplateSyntaxError as e:
            raise ChatError(f"chat template, line {e.lineno}: {e.message}") from None
        except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError, OverflowError) as e:
            raise ChatError(f"chat template: cannot be compiled: {_reason(e)}") from None

    def render(self, variables: Mapping[str, Any], size: int) -> Traced:
        """The text, with its origins. `size` is the input's length in characters; the limits grow with it.

        Raises RequestError with the template's own words if it refuses the conversation, ChatError if it fails.
        """
        try:
            with spending(Budget(size)):
                context = self._template.new_context(dict(variables))
                return _concat(self._template.root_render_func(context))
        except Refusal as e:
            raise RequestError(f"the model's chat template refuses this conversation: {e}", param="messages") from None
        except LimitError as e:
            raise ChatError(f"chat template stopped: {e}") from None
        except Exception as e:  # a template can raise anything; none of it is ours
            raise ChatError(f"chat template failed: {_reason(e)}") from e


def _reason(e: BaseException) -> str:
    if isinstance(e, RecursionError):
        return "it nests or calls itself too deeply"
    return f"{type(e).__name__}: {e}"[:500]


def _check(tree: nodes.Template) -> None:
    for node in tree.find_all(_FORBIDDEN):
        raise TemplateSyntaxError(f"{type(node).__name__.lower()} is not allowed in a chat template", node.lineno)


class _Code(CodeGenerator):
    """Generated code that marks the template's literals, measures the containers it builds and counts loop turns."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("tick")))
        super().visit_For(node, frame)

    def visit_EnvironmentAttribute(self, node: nodes.EnvironmentAttribute, frame: Frame) -> None:
        self.write(f"environment.{node.name}()")  # only visit_For makes this node

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, str):
            self.environment.literals[node.value] = Traced(node.value, MARKUP)  # type: ignore[attr-defined]
            self.write(f"environment.literals[{node.value!r}]")
        else:
            super().visit_Const(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat_values(")
        self.visit_Tuple(nodes.Tuple(node.nodes, "load"), frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.measured(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "store":
            return super().visit_Tuple(node, frame)
        self.write("environment.measured(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.measured(")
        super().visit_Dict(node, frame)
        self.write(")")


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks the assistant's words for other trainers; we know them by origin."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """namespace(), opaque when printed: its repr would print what it holds, and namespaces can hold each other."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, clock: Callable[[], datetime]):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            optimized=False,  # the optimizer would evaluate constant expressions at load, outside of any budget
            finalize=_finalize,  # it takes the context, which keeps the compiler, too, from evaluating early
            autoescape=False,
        )
        self.literals: dict[str, Traced] = {}
        self.concat = _concat  # type: ignore[method-assign]
        self.filters = {name: _counted(FILTERS[name], name) for name in _FILTERS}
        self.filters |= {name: _counted(f, name) for name, f in _OWN_FILTERS.items()}
        self.tests = {name: _counted(cast(Callable[..., Any], test), name) for name, test in TESTS.items()}
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: _strftime(clock(), form),
        }

    @staticmethod
    def tick() -> None:
        budget().tick()

    @staticmethod
    def measured(value: Any) -> Any:
        return budget().spend(value)

    @staticmethod
    def concat_values(values: tuple[Any, ...]) -> Traced:
        return _concat([_finalize(None, value) for value in values])

    def wrap_str_format(self, value: Any) -> None:
        """Traced.format is safe by itself."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        if not isinstance(obj, LoopContext | Macro | _Namespace):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_operands(operator, left, right)
        if isinstance(left, str) and not isinstance(left, Traced):
            left = Traced(left)
        return budget().spend(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget().tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            check_string_call(__obj.__name__, owner, args)
            __obj = getattr(owner if isinstance(owner, Traced) else Traced(owner), __obj.__name__)
        return budget().spend(super().call(__context, __obj, *args, **kwargs))


def _concat(pieces: Iterable[str]) -> Traced:
    """Join what a template yields. An exact str is template data: every {{ expression }} comes through _finalize."""
    parts: list[Part] = []
    spending_now = budget()
    size = 0
    for piece in pieces:
        size += len(piece)
        spending_now.allow(size)
        parts += piece.parts if isinstance(piece, Traced) else ((piece, MARKUP if type(piece) is str else TEXT),)
    return spending_now.spend(Traced.of(parts))


@pass_context
def _finalize(_: Context | None, value: Any) -> Traced:
    return value if isinstance(value, Traced) else Traced(str(value))


def _counted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget().tick()
        texts = [x for x in args if isinstance(x, str)]
        if len(texts) > 1 and name in ("replace", "trim", "in"):
            check_string_call(name, texts[0], tuple(texts[1:]))
        numbers = [x for x in (*args[1:], *kwargs.values()) if not isinstance(x, str)]
        if name == "round" and any(isinstance(x, int) and abs(x) > 20 for x in numbers):
            raise LimitError("round takes a precision of at most 20")
        if name == "sum" and any(isinstance(x, list | tuple) for x in numbers):
            raise LimitError("sum adds numbers; adding up lists takes quadratic time")
        return budget().spend(function(*args, **kwargs))

    return counted


@pass_environment
def _join(env: "_Environment", items: Iterable[Any], d: str = "", attribute: str | int | None = None) -> Traced:
    """Jinja's join, keeping origins."""
    if attribute is not None:
        items = map(make_attrgetter(env, attribute), items)
    texts = [_finalize(None, item) for item in items]
    glue = _finalize(None, d)
    check_string_call("join", glue, (texts,))
    return glue.join(texts)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> Traced:
    """As Hugging Face's: nothing is escaped for HTML."""
    depth = 1 + NEST_COST * int(indent or 0)
    budget().allow(measure(value, budget().most) * depth)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return Traced(text, getattr(value, "origin", TEXT))


NEST_COST = 8  # levels an item sits deep, generously: its indentation is this many times `indent`


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> Traced:
    """Indent every line but the first, as Jinja2's own, keeping origins."""
    pad = width if isinstance(width, str) else " " * min(int(width), 1000)
    given = text if isinstance(text, Traced) else Traced(str(text))
    lines = given.splitlines(keepends=True)
    budget().allow(len(given) + len(lines) * len(pad))
    padded = [pad + line if (i or first) and (blank or line.strip()) else line for i, line in enumerate(lines)]
    return Traced("").join(padded)


def _escape(text: Any) -> Traced:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = _finalize(None, text).replace(char, entity)
    return _finalize(None, text)


_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "join": _join,
    "tojson": _tojson,
    "indent": _indent,
    "escape": _escape,
    "e": _escape,
    "safe": lambda value: _finalize(None, value),
}


def _raise_exception(message: object = "no reason given") -> None:
    raise Refusal(str(message)[:500])


def _strftime(now: datetime, form: str) -> str:
    if len(form) > 100 or re.search(r"%(?![-#]?[A-Za-z%])", form):
        raise LimitError("strftime_now takes at most 100 characters and no widths")
    return now.strftime(form)
