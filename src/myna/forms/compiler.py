"""From a Form to a grammar that answers can be followed by, within limits of size and time.

What is compiled is kept: the same schema comes with every request of an application.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from myna.chat.stream import CLOSE, OPEN
from myna.chat.tokenizer import Tokenizer
from myna.forms.deep import deeply
from myna.forms.matcher import FormError, Matcher
from myna.forms.rules import quoted
from myna.forms.schema import SchemaError
from myna.forms.vocabulary import vocabulary
from myna.forms.worker import WorkerFailed, Workers, WorkersBusy
from myna.records import Form, RequestError, Style, Unavailable
from myna.records.form import Kind

log = logging.getLogger(__name__)

Reasoning = Literal["none", "maybe", "open"]
"""Whether the model thinks before it answers: never; if it opens <think> itself; the prompt ends inside <think>."""

STACK = 64 << 20
MAX_SOURCE = 256 << 10  # characters of a form
KEPT = 4 << 20  # characters of grammars that are kept compiled; one may take 150 bytes of memory each
TRIED = 4  # tokens
READS = 1.0  # seconds in which another reader has to make sense of an expression or grammar, or does not check it
OTHER_DIALECT = ("Lark's own reader may take an expression for something else than llguidance does",)
# One mask takes at most some 20 ms and one compilation some seconds, whatever the grammar (llguidance's own figures).
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, max_grammar_size=500_000,
    max_lexer_states=50_000, verbose_errors=False,
)  # fmt: skip


Check = Callable[[str], str | None]
"""Why a finished answer does not have its form; None where it does."""


class CheckFailed(Exception):
    """Whether a finished answer has its form could not be told: that took too long."""


@dataclass(frozen=True)
class _Read:
    """A form as it was understood. left: what the grammar allows and the form does not, for `check` to find."""

    grammar: dict[str, object]
    check: Check | None = None
    left: tuple[str, ...] = ()


class Compiled:
    """A form that answers can be followed by. Any thread may use it.

    left   what is not enforced while the answer is made, each with its place and keyword; only where a form is not strict
    """

    def __init__(self, form: Form, read: _Read, grammar: LLMatcher, vocab: int):
        self.form = form
        self.left = read.left
        self._check = read.check
        self._grammar = grammar
        self._vocab = vocab

    def check(self, text: str) -> str | None:
        """Why a finished answer does not have this form, said by somebody else than the grammar; None where it does, and
        for expressions and grammars that nobody else reads (readers.py). Raises CheckFailed."""
        return self._check(text) if self._check else None

    def matcher(self) -> Matcher:
        """A new answer's, at its beginning. Takes microseconds."""
        return Matcher(self._grammar.deep_copy(), self._vocab)


T = TypeVar("T")


class _Kept(Generic[T]):
    """What was used last, up to KEPT characters. Any thread may use it."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if key not in self._found:
                return None
            self._found.move_to_end(key)
            return self._found[key][0]

    def keep(self, key: Hashable, value: T, size: int) -> T:
        with self._lock:
            self._size += size - self._found.pop(key, (None, 0))[1]
            self._found[key] = value, size
            while self._size > KEPT:
                self._size -= self._found.popitem(last=False)[1][1]
        return value


class Compiler:
    """Compiles forms for one tokenizer. Any thread may call it; none of it belongs on an event loop."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Iterable[int]):
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self._vocabulary: LLTokenizer | None = None
        self._compiled: _Kept[Compiled] = _Kept()
        self._lowered: _Kept[str] = _Kept()
        self._lock = threading.Lock()
        self.compiled, self.seconds = 0, 0.0  # how many forms were, or were refused, and how long that took

    def compile(self, form: Form, reasoning: Reasoning = "none", instead: Form | None = None) -> Compiled:
        """Raises RequestError when the form is malformed, too large, or says what cannot be enforced.

        instead   another form that the answer may have as well: calls of tools. Answers of that form are not checked.
        """
        key = (form, reasoning, instead)
        if (known := self._compiled.get(key)) is not None:
            return known
        started = time.perf_counter()
        try:
            return self._compiled.keep(key, *self._compile(form, reasoning, instead))
        finally:
            with self._lock:
                self.compiled += 1
                self.seconds += time.perf_counter() - started

    def lower(self, schema: str, *, strict: bool, seconds: float | None = None) -> str:
        """A Lark grammar of a JSON Schema, to be part of another. Raises RequestError when it is malformed, or strict and
        says what cannot be enforced, or takes longer."""
        if (known := self._lowered.get((schema, strict))) is not None:
            return known
        lark = str(self._read(Form("schema", schema, strict), seconds).grammar["lark_grammar"])
        return self._lowered.keep((schema, strict), lark, len(schema) + len(lark))

    def lower_arguments(
        self, schema: str, style: Style, kinds: Mapping[str, Collection[str]], seconds: float | None = None
    ) -> str | None:
        """A Lark grammar of a call's arguments as a model writes them one by one. None where a grammar cannot hold them to
        the schema exactly, or not so that they read back, or it takes longer.

        kinds    the types that whoever reads it takes an argument to have, where they are known
        """
        texts = (style.before, style.between, style.after, style.comma, style.quote)
        special = {token: id for token, id in self._tokenizer.special.items() if any(token in text for text in texts)}
        asked = {"do": "arguments", "kind": "schema", "source": schema, "style": asdict(style), "special": special}
        asked |= {"kinds": {name: sorted(found) for name, found in kinds.items()}}
        if (known := self._lowered.get(key := json.dumps(asked))) is not None:
            return known
        lark = _ask(asked, seconds).get("lark")
        return self._lowered.keep(key, lark, len(key) + len(lark)) if isinstance(lark, str) else None

    def _compile(self, form: Form, reasoning: Reasoning, instead: Form | None) -> tuple[Compiled, int]:
        """The form, and its size in characters."""
        if not self._stop_ids:
            raise RequestError(
                "This model has no end-of-turn token, so its answers cannot have a form.", param=form.param
            )
        read = self._read(form)
        other = self._read(instead).grammar if instead else None
        whole = self._wrap(read.grammar, reasoning, other)
        if "error" in (tried := _ask({"do": "try", "grammar": whole})):
            raise _refusal(form, tried["error"])
        grammar = deeply(lambda: LLMatcher(self._words(), whole, log_level=0, limits=LIMITS), STACK)
        if grammar.is_error():
            raise _refusal(form, _reason(grammar.get_error()))
        compiled = Compiled(form, read, grammar, self._tokenizer.vocab_size)
        self._begin(compiled)
        return compiled, len(form.source) + len(whole)

    def _begin(self, compiled: Compiled) -> None:
        """The first tokens of some answer, so that what soon goes beyond llguidance's limits, or allows nothing, is refused
        now and is no error then."""
        matcher = compiled.matcher()
        try:
            for _ in range(TRIED):
                mask = np.zeros(-(-self._tokenizer.vocab_size // 32), np.uint32)
                matcher.fill(mask)
                allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()
                matcher.advance(next((id for id in allowed if self._tokenizer.piece(id).strip()), allowed[0]))
                if matcher.complete:
                    return
        except FormError as e:
            nothing = "NoExtension" in str(e)  # what it says where no token can follow
            raise _refusal(compiled.form, "no text has it" if nothing else str(e)) from None

    def _read(self, form: Form, seconds: float | None = None) -> _Read:
        if len(form.source) > MAX_SOURCE:
            raise _refusal(form, f"it has {len(form.source)} characters; at most {MAX_SOURCE} are compiled")
        if _is_surrogate(form.source):
            raise _refusal(form, "it is no Unicode text: it has a lone surrogate")
        try:
            match form.kind:
                case "json":
                    return self._lower("schema", '{"type": "object"}', strict=True)
                case "schema":
                    return self._lower("schema", form.source, strict=form.strict, seconds=seconds)
                case "tags":
                    return self._lower("tags", form.source, strict=form.strict)
                case "choice":
                    texts = _choices(form)
                    check: Check = lambda text: None if text in texts else "it is none of the choices"  # noqa: E731
                    return _Read({"lark_grammar": "start: " + " | ".join(map(quoted, texts))}, check)
                case "regex":  # \d, \w and \s are ASCII, as to vLLM and to the reader that checks
                    lark = f"start: /{regex_to_lark(form.source, 'dws')}/"
                    return _Read({"lark_grammar": lark}, _checked_elsewhere("regex", form.source))
                case "grammar":
                    lark = _lark(form)
                    return _Read({"lark_grammar": lark}, _checked_elsewhere("grammar", lark), OTHER_DIALECT)
        except SchemaError as e:
            raise _refusal(form, str(e)) from None

    def _lower(self, kind: Kind, source: str, *, strict: bool, seconds: float | None = None) -> _Read:
        """A schema or a structural tag, read by a process of its own."""
        asked = {"kind": kind, "source": source}
        special = self._tokenizer.special if kind == "tags" else {}
        found = _ask(asked | {"do": "lower", "strict": strict, "special": special}, seconds)
        if "error" in found:
            raise SchemaError(found["error"])
        return _Read({"lark_grammar": found["lark"]}, _checked(kind, source), tuple(found["left"]))

    def _words(self) -> LLTokenizer:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = vocabulary(self._tokenizer, self._stop_ids)
            return self._vocabulary

    def _wrap(self, grammar: dict[str, object], reasoning: Reasoning, other: dict[str, object] | None) -> str:
        """The grammar of the whole answer: what may stand before the form, then the form."""
        special = self._tokenizer.special
        opening = f"<[{special[OPEN]}]>" if OPEN in special else json.dumps(OPEN)
        think = (
            f"think: /(.|\\n)*/ <[{special[CLOSE]}]>" if CLOSE in special else f'think[suffix="{CLOSE}"]: /(.|\\n)*/'
        )
        # SentencePiece writes a blank before the first word, which is not part of the answer.
        blank = '" "?' if self._tokenizer.strips_blank else '""'
        before = {"none": blank, "open": "think LINES?", "maybe": f"({opening} think LINES? | {blank})"}[reasoning]
        if before == '""' and other is None:
            return json.dumps({"grammars": [grammar]})
        answer = "@form" if other is None else "(@form | @instead)"
        rules = [f"start: {before} {answer}", *([think, "LINES: /\\n{1,2}/"] if reasoning != "none" else [])]
        named = [{"name": "form", **grammar}, *([{"name": "instead", **other}] if other else [])]
        return json.dumps({"grammars": [{"lark_grammar": "\n".join(rules)}, *named]})


# Children of their own for the checks: a hostile schema that is being read holds up no answer that is finished.
_reading, _checking = Workers(), Workers()


def _ask(question: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
    try:
        found = (_checking if question["do"] == "check" else _reading).ask(question, seconds)
    except WorkerFailed as e:
        return {"error": str(e)}
    except WorkersBusy:
        raise Unavailable("Too many forms are being compiled; try again.", retry_after=10, code="queue_full") from None
    if "bug" in found:
        log.error("a form could not be read: %s", found["bug"])
    return found


def _checked(kind: Kind, source: str) -> Check:
    def check(text: str) -> str | None:
        try:
            answer = _ask({"do": "check", "kind": kind, "source": source, "text": text})
        except Unavailable as e:
            raise CheckFailed(str(e)) from None
        if "error" in answer:
            raise CheckFailed(answer["error"])
        problem: str | None = answer["problem"]
        return problem

    return check


def _checked_elsewhere(kind: Kind, source: str) -> Check | None:
    """The check of an expression or a grammar, where another reader takes it for the same."""
    found = _ask({"do": "reads", "kind": kind, "source": source}, READS)
    return _checked(kind, source) if found.get("reads") else None


def _choices(form: Form) -> list[str]:
    texts = _read_json(form)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _refusal(form, "it must be a list of texts, none of them empty")
    return texts


def _lark(form: Form) -> str:
    """Lark as it is; GBNF, which llama.cpp's clients send, translated."""
    if "::=" not in form.source:
        return form.source
    try:
        return any_to_lark(form.source)
    except Exception as e:
        raise _refusal(form, f"it is no GBNF: {e}") from None


def _is_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else False


def _read_json(form: Form) -> object:
    try:
        return json.loads(form.source)
    except (ValueError, RecursionError) as e:
        raise _refusal(form, f"it is not JSON: {e}") from None


def _reason(error: str) -> str:
    """llguidance's message: its first line, and where that is about an expression, what its reader found wrong."""
    first, *more = error.splitlines()
    found = [line.removeprefix("error: ") for line in more if line.startswith("error: ")]
    return " ".join([first, *found])[:300]


def _refusal(form: Form, why: str) -> RequestError:
    if "items; max is" in why:  # of the rows of its parser, in llguidance's words
        why = "too much of it is possible at one place, as where an object has more than some 600 optional properties"
    name = {"json": "JSON", "schema": "schema", "choice": "list of choices", "tags": "structural tag"}
    code = "invalid_json_schema" if form.kind in ("schema", "tags") else f"invalid_{form.kind}"
    return RequestError(f"The {name.get(form.kind, form.kind)} cannot be enforced: {why}.", param=form.param, code=code)
