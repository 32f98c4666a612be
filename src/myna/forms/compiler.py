"""From a Form to a grammar that answers can be followed by, within limits of size and time.

What is compiled is kept: the same schema comes with every request of an application.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from myna.chat.stream import CLOSE, OPEN
from myna.chat.tokenizer import Tokenizer
from myna.forms.matcher import Matcher
from myna.forms.vocabulary import vocabulary
from myna.records import Form, RequestError

Reasoning = Literal["none", "maybe", "open"]
"""Whether the model thinks before it answers: never; if it opens <think> itself; the prompt ends inside <think>."""

MAX_SOURCE = 256 << 10  # characters of a form
KEPT = 256  # compiled forms
# One mask takes at most some 20 ms and one compilation some seconds, whatever the grammar (llguidance's own figures).
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, step_max_items=50_000, max_grammar_size=500_000,
    max_lexer_states=50_000, verbose_errors=False,
)  # fmt: skip
WHITESPACE = r" |\n[ \t]{0,24}"  # between JSON's tokens: nothing, a blank, or a line end and indentation


class Compiled:
    """A form that answers can be followed by. Any thread may ask for a matcher."""

    def __init__(self, form: Form, grammar: LLMatcher, vocab: int):
        self.form = form
        self._grammar = grammar
        self._vocab = vocab

    def matcher(self) -> Matcher:
        """A new answer's, at its beginning. Takes microseconds."""
        return Matcher(self._grammar.deep_copy(), self._vocab)


class Compiler:
    """Compiles forms for one tokenizer. Any thread may call it; none of it belongs on an event loop."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Iterable[int]):
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self._vocabulary: LLTokenizer | None = None
        self._kept: OrderedDict[tuple[Form, Reasoning], Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, form: Form, reasoning: Reasoning = "none") -> Compiled:
        """Raises RequestError when the form is malformed, too large, or says what cannot be enforced."""
        key = (form, reasoning)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        compiled = self._compile(form, reasoning)
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return compiled

    def _compile(self, form: Form, reasoning: Reasoning) -> Compiled:
        if len(form.source) > MAX_SOURCE:
            raise _refusal(form, f"it has {len(form.source)} characters; at most {MAX_SOURCE} are compiled")
        if not self._stop_ids:
            raise RequestError("This model has no end-of-turn token, so its answers cannot have a form.", param=PARAM)
        grammar = LLMatcher(self._words(), self._wrap(_grammar(form), reasoning), log_level=0, limits=LIMITS)
        if grammar.is_error():
            raise _refusal(form, grammar.get_error().splitlines()[0])
        return Compiled(form, grammar, self._tokenizer.vocab_size)

    def _words(self) -> LLTokenizer:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = vocabulary(self._tokenizer, self._stop_ids)
            return self._vocabulary

    def _wrap(self, grammar: dict[str, object], reasoning: Reasoning) -> str:
        """The grammar of the whole answer: what may stand before the form, then the form."""
        special = self._tokenizer.special
        opening = f"<[{special[OPEN]}]>" if OPEN in special else json.dumps(OPEN)
        think = (
            f"think: /(.|\\n)*/ <[{special[CLOSE]}]>" if CLOSE in special else f'think[suffix="{CLOSE}"]: /(.|\\n)*/'
        )
        # SentencePiece writes a blank before the first word, which is not part of the answer.
        blank = '" "?' if self._tokenizer.strips_blank else '""'
        before = {"none": blank, "open": "think LINES?", "maybe": f"({opening} think LINES? | {blank})"}[reasoning]
        if before == '""':
            return json.dumps({"grammars": [grammar]})
        rules = [f"start: {before} @form", *([think, "LINES: /\\n{1,2}/"] if reasoning != "none" else [])]
        return json.dumps({"grammars": [{"lark_grammar": "\n".join(rules)}, {"name": "form", **grammar}]})


PARAM = "response_format"


def _grammar(form: Form) -> dict[str, object]:
    """What llguidance calls a grammar."""
    match form.kind:
        case "json":
            return {"json_schema": {"type": "object", "x-guidance": {"whitespace_pattern": WHITESPACE}}}
        case "schema":
            schema = _read_json(form)
            options = {"x-guidance": {"whitespace_pattern": WHITESPACE}}
            return {"json_schema": schema | options if isinstance(schema, dict) else schema}
        case "regex":
            return {"lark_grammar": "start: " + _regex(form.source)}
        case "choice":
            return {"lark_grammar": "start: " + " | ".join(json.dumps(text) for text in _choices(form))}
        case "grammar":
            return {"lark_grammar": _lark(form)}
        case "tags":
            raise _refusal(form, "structural tags are not supported yet")


def _regex(expression: str) -> str:
    return "/" + regex_to_lark(expression, "") + "/"


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
    return RequestError(f"The {name.get(form.kind, form.kind)} cannot be enforced: {why}.", param=PARAM, code=code)
