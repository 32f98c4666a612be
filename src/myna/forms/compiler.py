"""From a Form to a grammar that answers can be followed by, within limits of size and time.

What is compiled is kept: the same schema comes with every request of an application.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from myna.chat.stream import CLOSE, OPEN
from myna.chat.tokenizer import Tokenizer
from myna.forms.deep import deeply
from myna.forms.matcher import Matcher
from myna.forms.rules import quoted
from myna.forms.schema import SchemaError
from myna.forms.vocabulary import vocabulary
from myna.forms.worker import WorkerFailed, Workers
from myna.records import Form, RequestError, Style
from myna.records.form import Kind

log = logging.getLogger(__name__)

Reasoning = Literal["none", "maybe", "open"]
"""Whether the model thinks before it answers: never; if it opens <think> itself; the prompt ends inside <think>."""

STACK = 64 << 20
MAX_SOURCE = 256 << 10  # characters of a form
KEPT = 256  # compiled forms
# One mask takes at most some 20 ms and one compilation some seconds, whatever the grammar (llguidance's own figures).
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, max_grammar_size=500_000,
    max_lexer_states=50_000, verbose_errors=False,
)  # fmt: skip


Check = Callable[[str], str | None]
"""Why a finished answer does not have its form; None where it does."""


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
        for expressions and grammars, which nobody else reads."""
        return self._check(text) if self._check else None

    def matcher(self) -> Matcher:
        """A new answer's, at its beginning. Takes microseconds."""
        return Matcher(self._grammar.deep_copy(), self._vocab)


class Compiler:
    """Compiles forms for one tokenizer. Any thread may call it; none of it belongs on an event loop."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Iterable[int]):
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self._vocabulary: LLTokenizer | None = None
        self._kept: OrderedDict[tuple[Form, Reasoning, Form | None], Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self.compiled, self.seconds = 0, 0.0  # how many forms were, or were refused, and how long that took

    def compile(self, form: Form, reasoning: Reasoning = "none", instead: Form | None = None) -> Compiled:
        """Raises RequestError when the form is malformed, too large, or says what cannot be enforced.

        instead   another form that the answer may have as well: calls of tools. Answers of that form are not checked.
        """
        key = (form, reasoning, instead)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        started = time.perf_counter()
        try:
            compiled = self._compile(form, reasoning, instead)
        finally:
            with self._lock:
                self.compiled += 1
                self.seconds += time.perf_counter() - started
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return compiled

    def lower(self, schema: str, *, strict: bool) -> str:
        """A Lark grammar of a JSON Schema, to be part of another. Raises RequestError when it is malformed, or strict and
        says what cannot be enforced."""
        form = Form("schema", schema, strict)
        return str(self._read(form).grammar["lark_grammar"])

    def lower_arguments(self, schema: str, style: Style, kinds: Mapping[str, Collection[str]]) -> str | None:
        """A Lark grammar of a call's arguments as a model writes them one by one. None where a grammar cannot hold them to
        the schema exactly, or not so that they read back.

        kinds    the types that whoever reads it takes an argument to have, where they are known
        """
        texts = (style.before, style.between, style.after, style.comma)
        special = {token: id for token, id in self._tokenizer.special.items() if any(token in text for text in texts)}
        asked = {"do": "arguments", "kind": "schema", "source": schema, "style": asdict(style), "special": special}
        lark = _ask(asked | {"kinds": {name: sorted(found) for name, found in kinds.items()}}).get("lark")
        return lark if isinstance(lark, str) else None

    def _compile(self, form: Form, reasoning: Reasoning, instead: Form | None) -> Compiled:
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
            raise _refusal(form, grammar.get_error().splitlines()[0])
        return Compiled(form, read, grammar, self._tokenizer.vocab_size)

    def _read(self, form: Form) -> _Read:
        if len(form.source) > MAX_SOURCE:
            raise _refusal(form, f"it has {len(form.source)} characters; at most {MAX_SOURCE} are compiled")
        try:
            match form.kind:
                case "json":
                    return self._lower("schema", '{"type": "object"}', strict=True)
                case "schema":
                    return self._lower("schema", form.source, strict=form.strict)
                case "tags":
                    return self._lower("tags", form.source, strict=form.strict)
                case "choice":
                    texts = _choices(form)
                    check: Check = lambda text: None if text in texts else "it is none of the choices"  # noqa: E731
                    return _Read({"lark_grammar": "start: " + " | ".join(map(quoted, texts))}, check)
                case "regex":
                    return _Read({"lark_grammar": f"start: /{regex_to_lark(form.source, '')}/"})
                case "grammar":
                    return _Read({"lark_grammar": _lark(form)})
        except SchemaError as e:
            raise _refusal(form, str(e)) from None

    def _lower(self, kind: Kind, source: str, *, strict: bool) -> _Read:
        """A schema or a structural tag, read by a process of its own."""
        asked = {"kind": kind, "source": source}
        special = self._tokenizer.special if kind == "tags" else {}
        found = _ask(asked | {"do": "lower", "strict": strict, "special": special})
        if "error" in found:
            raise SchemaError(found["error"])

        def check(text: str) -> str | None:
            answer = _ask(asked | {"do": "check", "text": text})
            return answer.get("error") or answer.get("problem")

        return _Read({"lark_grammar": found["lark"]}, check, tuple(found["left"]))

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


_workers = Workers()


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    try:
        found = _workers.ask(question)
    except WorkerFailed as e:
        return {"error": str(e)}
    if "bug" in found:
        log.error("a form could not be read: %s", found["bug"])
    return found


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


def _read_json(form: Form) -> object:
    try:
        return json.loads(form.source)
    except (ValueError, RecursionError) as e:
        raise _refusal(form, f"it is not JSON: {e}") from None


def _refusal(form: Form, why: str) -> RequestError:
    name = {"json": "JSON", "schema": "schema", "choice": "list of choices", "tags": "structural tag"}
    code = "invalid_json_schema" if form.kind in ("schema", "tags") else f"invalid_{form.kind}"
    return RequestError(f"The {name.get(form.kind, form.kind)} cannot be enforced: {why}.", param=form.param, code=code)
