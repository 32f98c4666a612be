"""The one renderer: a conversation becomes token ids, weights and segments, for the trainer and the server alike.

The template writes text whose every part knows its author (traced.py). Control tokens are looked for in what the
template wrote and nowhere else. Between them, markup and people's words are tokenized together, as the model saw them in
training; but a run is cut where an assistant's turn begins and ends, because that is where a prompt ends and
sampling takes over: the server cannot know how a token would have merged with words not yet sampled. So

    ids of a conversation == ids of the prompt before its answer + sampled ids (+ the markup that ends the turn).
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from myna.chat.dialects import FALLBACK, choose, dialect
from myna.chat.given import check, plain_rows, rows_of
from myna.chat.infill import find_infill
from myna.chat.scan import NOTHING, Bound
from myna.chat.stream import Calls, TextDelta, TextStream, plain
from myna.chat.template import ChatTemplate
from myna.chat.tokenized import Rendered, Segment, Tokenized, segments, weigh_others
from myna.chat.tokenizer import Tokenizer, read_json, read_template
from myna.chat.tools import PROBE, PROBE_IDS, PROBE_TOOL, schemas, shown
from myna.chat.traced import MARKUP, Origin, Place, Traced, parts_of
from myna.chat.values import decode
from myna.records import ChatError, Conversation, Delta, Document, Json, Message, RequestError, ToolCall, fold


@dataclass
class _Turn:
    """An assistant's turn in the rendered text. The model writes start to end, then the token that ends at `close`.

    `aligned`: the text up to `start` is the very prompt the turn answers; otherwise the template rewrites it later.
    `sampled` are the ids to use in place of that text; they run to `close` when they end with a stop token.
    """

    weight: int
    start: int
    end: int
    close: int
    aligned: bool
    sampled: tuple[int, ...] | None = None


class Chat:
    """A model's tokenizer and chat template. `stop_ids` end an answer; `dialect` is how the model writes tool calls."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        names: dict[str, str],
        where: str = "model",
        speaks: str | None = None,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.infill = find_infill(tokenizer.special)
        self._names = names
        self._where = where
        self.dialect = dialect(speaks or FALLBACK)
        self._takes_tools = template is not None and "tools" in template.variables
        self._writes_calls, self._takes_system, self._wants_none = True, False, False
        self._opener, ends = self._probe() if template else ("", frozenset())
        self.stop_ids = frozenset(tokenizer.eos_ids) | ends
        if template:
            call, example = self._calls_by_example()
            self._writes_calls = self._takes_tools or example is not None
            if not speaks:
                self.dialect = choose(template.source, example, call) if self._writes_calls else dialect(FALLBACK)
            self._takes_system = not self._takes_tools and self._shows_system()
        special = tokenizer.special
        self._markers = frozenset(special[marker] for marker in self.dialect.markers if marker in special)
        self._thinks = frozenset(special[marker] for marker in self.dialect.think or () if marker in special)

    @classmethod
    def load(
        cls,
        path: Path,
        template: str | None = None,
        clock: Callable[[], datetime] = datetime.now,
        *,
        speaks: str | None = None,
    ) -> "Chat":
        """Read a model directory's tokenizer and chat template. `template` is used instead of the directory's; `speaks`
        names the dialect of its tool calls, which else is told from the template.

        Raises ChatError. A base model has no template: `prompt` works, `render` says so.
        """
        path = Path(path)
        tokenizer = Tokenizer.load(path)
        source = read_template(path) if template is None else template
        config = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
        values = {k: v.get("content") if isinstance(v, dict) else v for k, v in config.items() if k.endswith("_token")}
        names = {k: v for k, v in values.items() if isinstance(v, str)}
        try:
            return cls(tokenizer, None if source is None else ChatTemplate(source, clock), names, path.name, speaks)
        except ChatError as e:
            raise ChatError(f"{path}: {e}") from None

    def render(self, conversation: Conversation, *, open_turn: bool = True) -> Rendered:
        """The conversation's ids; `open_turn` adds the markup after which the assistant is to speak.

        Weights are 1 on what the assistant wrote and on the token that ends its turn; `Message.weight` decides otherwise.
        Raises ChatError if the model has no template or it fails, RequestError if the conversation is at fault.
        """
        check(conversation)
        if conversation.continues:
            return self._begun(conversation)
        text = self._text(conversation, open_turn)
        text, turns = self._turns(conversation, text, open_turn)
        tokens = self._tokenize(text, turns)
        weights = weigh_others(conversation, text, tokens)
        inside = open_turn and self._inside_reasoning(text)
        return Rendered(tuple(tokens.ids), tuple(weights), segments(text, tokens.ends), open_reasoning=inside)

    def _begun(self, conversation: Conversation) -> Rendered:
        """The prompt of all messages but the last, and then the last one's words as they are: sampling goes on from them. They
        are cut from the prompt where sampled words would be, and reasoning that the prompt opens ends before them."""
        *before, begun = conversation.messages
        if begun.role != "assistant" or begun.tool_calls or begun.reasoning_content or self.dialect.always:
            why = "the last message should be the assistant's, and text alone"
            if self.dialect.always:
                why = f"{self._where} frames its answers, and a text alone begins none"
            raise RequestError(f"There is no answer to go on with: {why}.", param=f"messages.{len(before)}")
        asked = replace(conversation, messages=tuple(before), continues=False)
        check(asked)
        text, turns = self._turns(asked, self._text(asked, True), True)
        if self.dialect.think and self._inside_reasoning(text):
            text = Traced.of((*text.parts, (f"\n{self.dialect.think[1]}\n\n", MARKUP)))
        start, end = len(text), len(text) + len(begun.text)
        text = Traced.of((*text.parts, (begun.text, Origin("assistant", len(before)))))
        tokens = self._tokenize(text, [*turns, _Turn(1, start, end, end, aligned=True)])
        return Rendered(tuple(tokens.ids), tuple(tokens.weights), segments(text, tokens.ends), begun=True)

    def prompt(self, document: Document) -> Rendered:
        """A document to continue: its ids, after the bos token if the tokenizer wants one. All weights are 1.

        `document.tokens`, when present, are the ids as they are. With a suffix it is a prompt to fill in what is between.
        Raises RequestError if it has a suffix and the tokenizer no control tokens for it.
        """
        if document.suffix is not None:
            return self._gap(document.text, document.suffix)
        if document.tokens is not None:
            ids = document.tokens.ids
        else:
            ids = (*self.tokenizer.opening, *self.tokenizer.encode(document.text))
        return Rendered(ids, (1,) * len(ids), (Segment("text", document.text, 0, len(ids)),), continues=True)

    def _gap(self, prefix: str, suffix: str) -> Rendered:
        infill = self.infill
        if infill is None:
            raise RequestError(
                f"{self._where} cannot fill in: its tokenizer has no control tokens for it. Leave suffix out.",
                param="suffix",
                code="unsupported_parameter",
            )
        texts = (suffix, prefix) if infill.suffix_first else (prefix, suffix)
        first, second = (self.tokenizer.encode_run(text).ids for text in texts)
        after = () if infill.after is None else (infill.after,)
        ids = (*self.tokenizer.opening, infill.before, *first, infill.between, *second, *after)
        segments = (Segment("text", "".join(texts), 0, len(ids)),)
        return Rendered(ids, (1,) * len(ids), segments, continues=True, stop_ids=infill.stops)

    def text_stream(
        self,
        stop: tuple[str, ...] = (),
        *,
        open_reasoning: bool = False,
        continues: bool = False,
        begun: bool = False,
        tools: Mapping[str, Json] = NOTHING,
        taken: Iterable[str] = (),
        parallel: bool = True,
        bound: Bound = "",
    ) -> TextStream:
        """A stream for one candidate; pass the prompt's `open_reasoning`, `continues` and `begun`, and what may be called.

        tools      name -> JSON Schema of the parameters; empty: what looks like a call is text
        taken      ids of earlier calls
        parallel   several calls are wanted; if not, the first one ends the answer
        bound      what is not shown, as it can only be a call that was cut
        """
        parses = bool(tools or self.dialect.always)
        shown = self._thinks | self._markers if parses else self._thinks
        piece, visible = self.tokenizer.piece, self.tokenizer.visible
        return TextStream(
            visible if continues else lambda id: piece(id) if id in shown else visible(id),
            stop,
            reader=plain(open_reasoning)
            if continues
            else self.dialect.reader(tools, inside=open_reasoning, bound=bound),
            calls=Calls(self.dialect.new_id, taken),
            parallel=parallel,
            strip_blank=self.tokenizer.strips_blank and not (continues or begun),
        )

    @property
    def tools_in(self) -> str | None:
        """Who tells the model of its tools, and where; None for a base model."""
        if self.template is None or self._takes_tools:
            return "chat template" if self.template else None
        return f"our words, in the {'system turn' if self._takes_system else 'first user turn'}"

    def _calls_by_example(self) -> tuple[ToolCall, str | None]:
        """A call, and how the template writes it; None if it writes none."""
        for self._wants_none in (False, True):  # DeepSeek's shows calls only of messages that have no text at all
            for id in PROBE_IDS:
                if (text := self._example(call := replace(PROBE, id=id))) is not None:
                    return call, text
        self._wants_none = False
        return PROBE, None

    def _shows_system(self) -> bool:
        """Whether the template takes a system turn, and shows it."""
        try:
            return PROBE.name in self._text(Conversation.of(("system", PROBE.name), ("user", "a")), True)
        except (ChatError, RequestError):
            return False

    def _example(self, call: ToolCall) -> str | None:
        """What the template writes for a call, up to the token that ends the turn; None if it writes none."""
        ask = Conversation.ask("a", tools=(PROBE_TOOL,) if self._takes_tools else ())
        try:
            asked = str.__str__(self._text(ask, True))
            answered = str.__str__(self._text(ask + Message("assistant", tool_calls=(call,)), False))
        except (ChatError, RequestError):
            return None
        pairs = zip(asked, answered, strict=False)
        wrote = answered[next((i for i, (a, b) in enumerate(pairs) if a != b), len(asked)) :]
        end, _ = self._end_of_turn(wrote, 0, len(wrote))
        return wrote[:end] if call.name in wrote[:end] else None

    def _text(self, conversation: Conversation, open_turn: bool) -> Traced:
        if self.template is None:
            raise ChatError(
                f"{self._where} has no chat template: it is a base model, which continues text. "
                'Use `myna generate`, or pull the model\'s chat ("instruct") version.'
            )
        how = {"developer": "developer" in self.template.source, "none": self._wants_none}
        if self._takes_tools:
            messages = rows_of(conversation, self.dialect, **how)
        else:
            system, calls = self._takes_system, self._writes_calls
            messages = plain_rows(conversation, self.dialect, **how, system=system, calls=calls)
        variables = {name: Traced(value, MARKUP) for name, value in self._names.items()} | {
            "messages": messages,
            "tools": [shown(tool) for tool in conversation.tools] or None,
            "documents": None,
            "add_generation_prompt": open_turn,
        }
        return self.template.render(variables, len(json.dumps([m.to_json() for m in conversation.messages])))

    def _turns(self, conversation: Conversation, text: Traced, open_turn: bool) -> tuple[Traced, list[_Turn]]:
        """The assistant's turns, in order; and the text, changed only if the last turn was sampled and the template
        would write it otherwise than it was sampled (DeepSeek's drops all reasoning). Earlier turns that the template
        rewrites stay rewritten: that is what the next prompt showed."""
        turns = []
        places = text.places
        reach = _reach(places)
        for i, message in enumerate(conversation.messages):
            if message.role != "assistant" or i not in reach:
                continue
            turn = self._turn(conversation, i, text, places, reach[i])
            turns.append(turn)
            if message.tokens is None:
                continue
            last = i == len(conversation.messages) - 1 and not open_turn
            faithful = turn.aligned and self._reads(
                message, str.__str__(text)[turn.start : turn.end], conversation.tools
            )
            if last and not faithful:
                text = self._as_asked(conversation, i, text, turn)
            if last or faithful:
                turn.sampled = self._evidence(conversation, i, text[: turn.start], open_turn)
        return text, turns

    def _as_asked(self, conversation: Conversation, i: int, text: Traced, turn: _Turn) -> Traced:
        """The text with the prompt that turn i answered in place of what precedes the turn now. Moves the turn."""
        prompt = self._text(replace(conversation, messages=conversation.messages[:i]), open_turn=True)
        shift = len(prompt) - turn.start
        words = (str.__str__(text)[turn.start : turn.end], Origin("assistant", i))
        after = parts_of(text[turn.end :])
        turn.start, turn.end, turn.close = turn.start + shift, turn.end + shift, turn.close + shift
        return Traced.of((*prompt.parts, words, *after))

    def _turn(
        self, conversation: Conversation, i: int, text: Traced, places: list[Place], reach: tuple[int, int]
    ) -> _Turn:
        """Where message i stands in the text. It starts where the prompt before it ends, if the text begins with that."""
        first, end = reach
        close = end
        after = bisect_left(places, end, key=lambda place: place[0])
        for start, stop, origin in places[after : after + 2]:
            if origin == MARKUP:
                end, close = self._end_of_turn(str.__str__(text)[start:stop], start, end)
                break
        weight = conversation.messages[i].weight
        opens = self._prompt_end(conversation, i, text, first)
        at = first if opens is None else opens
        return _Turn(1 if weight is None else weight, at, end, close, aligned=opens is not None)

    def _end_of_turn(self, markup: str, at: int, end: int) -> tuple[int, int]:
        """(start, end) of the first stop token in the markup at `at`; (end, end) if it has none."""
        for is_control, piece in self.tokenizer.split_markup(markup):
            if is_control and self.tokenizer.control_id(piece) in self.stop_ids:
                return at, at + len(piece)
            at += len(piece)
        return end, end

    def _prompt_end(self, conversation: Conversation, i: int, text: Traced, first: int) -> int | None:
        """Where the prompt of turn i ends, whose first words are at `first`; None if the text does not begin with it."""
        if self._opener and str.__str__(text)[:first].endswith(self._opener):
            return first
        try:
            prompt = self._text(replace(conversation, messages=conversation.messages[:i]), open_turn=True)
        except (ChatError, RequestError):  # a template may refuse the shorter conversation
            return None
        return len(prompt) if len(prompt) <= first and text.startswith(prompt) else None

    def _evidence(self, conversation: Conversation, i: int, before: Traced, open_turn: bool) -> tuple[int, ...] | None:
        """The ids that message i was sampled as after the text `before`. They must say what the message says: otherwise we
        would train on one and show the other.

        None where they say more and it is history in a prompt: a stop string ended that turn, and what counts for the
        next one is what was shown.
        """
        message = conversation.messages[i]
        assert message.tokens
        ids, inside = message.tokens.ids, self._inside_reasoning(before)
        heard = ""
        for known in _callable(message, conversation.tools):
            stream = self.text_stream(open_reasoning=inside, tools=known)
            deltas = [*(stream.push(id) for id in ids), stream.finish()]
            if _says(message, deltas):
                return ids
            heard = "".join(delta.text for delta in deltas)
        if open_turn and heard.strip().startswith(message.text.strip()):
            return None
        raise ChatError(
            f"messages.{i}.tokens: the ids read {heard[:80]!r}, the message says {message.text[:80]!r}. "
            "Remove `tokens` to have the text tokenized, or keep the message as it was sampled."
        )

    def _reads(self, message: Message, text: str, tools: Sequence[Json]) -> bool:
        """Whether an answer as the template wrote it reads as the message."""
        data = text.encode()
        for known in _callable(message, tools):
            stream = TextStream(lambda _: data, reader=self.dialect.reader(known))
            if _says(message, [stream.push(0), stream.finish()]):
                return True
        return False

    def _tokenize(self, text: Traced, turns: list[_Turn]) -> "Tokenized":
        out = Tokenized(self.tokenizer, text)
        at = 0
        for turn in turns:
            out.write(at, turn.start)
            at = turn.start
            if turn.sampled is not None:
                at = turn.close if turn.sampled[-1:] and turn.sampled[-1] in self.stop_ids else turn.end
                out.put(turn.sampled, at, turn.weight)
            out.write(at, turn.end, turn.weight)
            out.write(max(at, turn.end), turn.close, turn.weight)
            at = turn.close
        out.write(at, len(text))
        return out

    def _inside_reasoning(self, text: Traced) -> bool:
        """Whether the markup at the very end opens a reasoning block and leaves it open."""
        if self.dialect.think is None:
            return False
        end = next((part for part in reversed(text.parts) if part[0]), ("", MARKUP))
        markup = end[0] if end[1] == MARKUP else ""
        opens, closes = self.dialect.think
        return markup.rfind(opens) > markup.rfind(closes)

    def _probe(self) -> tuple[str, frozenset[int]]:
        """What opens an assistant's turn, and what ends one, read off two small conversations. Empty where the template
        refuses them or writes neither."""
        ask = Conversation.ask("a")
        try:
            closed, opened = self._text(ask, False), self._text(ask, True)
            answered = self._text(ask + Message("assistant", "b"), False)
        except (ChatError, RequestError):
            return "", frozenset()
        opener = str.__str__(opened)[len(closed) :] if opened.startswith(closed) else ""
        after = answered.parts[-1][0] if answered.parts[-1][1] == MARKUP else ""
        controls = [
            self.tokenizer.control_id(piece) for is_control, piece in self.tokenizer.split_markup(after) if is_control
        ]
        return opener, frozenset(controls[:1])


def _callable(message: Message, tools: Sequence[Json]) -> Iterator[Mapping[str, Json]]:
    """What an answer may have been able to call: the tools; and nothing, if it made no calls."""
    known = schemas(tools) | {call.name: {} for call in message.tool_calls}
    if known:
        yield known
    if not message.tool_calls:
        yield NOTHING


def _says(message: Message, deltas: Sequence[TextDelta]) -> bool:
    """Whether an answer reads as the message, but for white space around it, and in JSON."""
    said = fold(Delta(text=d.text, reasoning=d.reasoning, tool_calls=d.calls) for d in deltas).candidates[0].messages[0]
    return (
        said.text.strip() == message.text.strip()
        and (said.reasoning_content or "").strip() == (message.reasoning_content or "").strip()
        and [_meaning(call) for call in said.tool_calls] == [_meaning(call) for call in message.tool_calls]
    )


def _meaning(call: ToolCall) -> tuple[str, object]:
    return call.name, decode(call.arguments) or call.arguments


def _reach(places: list[Place]) -> dict[int, tuple[int, int]]:
    """Where each message's own words begin and end."""
    reach: dict[int, tuple[int, int]] = {}
    for start, end, origin in places:
        if origin.message is not None:
            reach[origin.message] = (reach.get(origin.message, (start,))[0], end)
    return reach
