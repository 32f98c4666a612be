"""Rows as others write them, read into our records. One function a format: (row, path) -> the records it holds.

Fields that nobody took stay in `meta`. What we cannot honour, such as an image, is refused, never left out.
Which format a row is in: convert.py.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from myna.records import Candidate, Conversation, DataError, Document, Json, Message, Role, ToolCall
from myna.records.exported import SPEAKERS, talk
from myna.records.fields import Fields, kind_of

Record = Conversation | Document

CALLS = ("function_call", "tool_call")
RESULTS = ("observation", "tool", "function_response", "tool_response")
# The prompt that Stanford Alpaca was trained with, and that many sets were published in.
ALPACA_PROMPT = "Below is an instruction that describes a task"
UNSEEN = ("image", "images", "video", "videos", "audio", "audios")
OLD = ("functions", "function_call")  # what OpenAI wrote before tools


def text(row: object, path: str = "") -> list[Record]:
    """{"text", ...}"""
    return [Document.from_json(row, path)]


def messages(row: object, path: str = "") -> list[Record]:
    """{"messages": [{"role", "content"}], "tools"?, ...}: OpenAI's, and our own."""
    if isinstance(row, dict):
        turns = row.get("messages")
        _refuse(row, OLD, "is OpenAI's old form of tools; write `tools`, `tool_calls` and the role 'tool'")
        for i, turn in enumerate(turns if isinstance(turns, list) else ()):
            if isinstance(turn, dict):
                _refuse(turn, OLD, "is OpenAI's old form; write `tool_calls`", f"messages.{i}.")
    return [Conversation.from_json(row, path)]


def openai_preference(row: object, path: str = "") -> list[Record]:
    """{"input": {"messages", "tools"?}, "preferred_output": [message], "non_preferred_output": [message]}"""
    f = Fields(row, path)
    asked = Fields(f.take("input", dict), f.at("input"))
    prompt = asked.take_list("messages", Message.from_json, required=True)
    sides = (
        f.take_list(name, Message.from_json, required=True) for name in ("preferred_output", "non_preferred_output")
    )
    return [Conversation(prompt, tools=_tools(asked), candidates=_pair(*sides), meta=f.rest() | asked.rest())]


def preference(row: object, path: str = "") -> list[Record]:
    """{"prompt"?, "chosen", "rejected"}, each a text or messages; without a prompt, both begin with it."""
    f = Fields(row, path)
    system = _system(f)
    prompt = (*system, *_said(f, "prompt", "user")) if _has(f, row, "prompt") else system
    chosen, rejected = _said(f, "chosen", "assistant"), _said(f, "rejected", "assistant")
    if len(prompt) == len(system):
        shared, chosen, rejected = _apart(chosen, rejected)
        prompt = (*system, *shared)
    return [Conversation(prompt, tools=_tools(f), candidates=_pair(chosen, rejected), meta=f.rest())]


def judged(row: object, path: str = "") -> list[Record]:
    """{"prompt", "completion", "label": true or false}: one answer, and whether it is wanted (KTO)."""
    f = Fields(row, path)
    prompt, answer = (*_system(f), *_said(f, "prompt", "user")), _said(f, "completion", "assistant")
    score = float(f.take("label", bool))
    return [Conversation(prompt, tools=_tools(f), candidates=(Candidate(answer, score),), meta=f.rest())]


def labelled(row: object, path: str = "") -> list[Record]:
    """{"text", "label" or "target": a word or a number}: a text and its class."""
    f = Fields(row, path)
    label = f.take("label" if _has(f, row, "label") else "target", str, int, bool)
    return [Conversation((Message("user", f.take("text", str)),), id=_id(f), target=label, meta=f.rest())]


def matched(row: object, path: str = "") -> list[Record]:
    """{"query" or "anchor", "positive", "negative"? or "negatives"?: a text or texts}, as sentence-transformers has them: what
    a query should find, and what it should not."""
    f = Fields(row, path)
    query = f.take("query" if _has(f, row, "query") else "anchor", str)
    wrong = f.take("negatives" if _has(f, row, "negatives") else "negative", str, list, default=[])
    texts = [f.take("positive", str), *([wrong] if isinstance(wrong, str) else wrong)]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{f.at('negatives')}: expected texts")
    candidates = tuple(Candidate((Message("assistant", text),), float(n == 0)) for n, text in enumerate(texts))
    return [Conversation((Message("user", query),), id=_id(f), candidates=candidates, meta=f.rest())]


def hh(row: object, path: str = "") -> list[Record]:
    """{"chosen", "rejected"}: whole conversations as text, "\\n\\nHuman: ...\\n\\nAssistant: ..." (Anthropic)."""
    f = Fields(row, path)
    sides = [_human_assistant(f.take(name, str), f.at(name)) for name in ("chosen", "rejected")]
    shared, chosen, rejected = _apart(*sides)
    return [Conversation(shared, candidates=_pair(chosen, rejected), meta=f.rest())]


def alpaca(row: object, path: str = "") -> list[Record]:
    """{"instruction", "input"?, "output", "system"?, "history"?: [[question, answer]]}; also `context` and `response`.

    A list of outputs is ranked, best first."""
    f = Fields(row, path)
    prompt = [*_system(f)]
    for i, turn in enumerate(f.take("history", list, default=[])):
        where = f"{f.at('history')}.{i}"
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise DataError(f"{where}: expected a question and its answer, two strings")
        prompt += [Message("user", turn[0]), Message("assistant", turn[1])]
    prompt.append(Message("user", _with_input(f.take("instruction", str), f)))
    name = "output" if _has(f, row, "output") else "response"
    output = f.take(name, str, list)
    if isinstance(output, list):
        return [Conversation(tuple(prompt), candidates=_ranked(output, f.at(name)), meta=f.rest())]
    prompt.append(Message("assistant", output))
    return [Conversation(tuple(prompt), id=_id(f), meta=f.rest())]


def self_instruct(row: object, path: str = "") -> list[Record]:
    """{"instruction", "instances": [{"input", "output"}]}: a record an instance."""
    f = Fields(row, path)
    instruction, id = f.take("instruction", str), _id(f)
    instances = f.take_list("instances", Fields, required=True)
    meta = f.rest()
    records: list[Record] = []
    for i, g in enumerate(instances):
        turns = Message("user", _with_input(instruction, g)), Message("assistant", g.take("output", str))
        records.append(Conversation(turns, id=f"{id}.{i}" if id and i else id, meta=meta | g.rest()))
    return records


def prompted(row: object, path: str = "") -> list[Record]:
    """{"prompt", "completion" or "response"}, each a text or messages. A prompt that Alpaca's words were put around is freed
    of them: the chat template says what they said."""
    f = Fields(row, path)
    prompt = (*_system(f), *_said(f, "prompt", "user"))
    answer = _said(f, "completion" if _has(f, row, "completion") else "response", "assistant")
    if len(prompt) == 1 and prompt[0].role == "user":
        prompt = (Message("user", _without_alpaca(prompt[0].text)),)
    return [Conversation((*prompt, *answer), id=_id(f), tools=_tools(f), meta=f.rest())]


def question(row: object, path: str = "") -> list[Record]:
    """{"question", "answer"}; the answer is the `target` too, for a method that samples answers of its own."""
    f = Fields(row, path)
    asked, answer = f.take("question", str), f.take("answer", str)
    turns = (*_system(f), Message("user", asked), Message("assistant", answer))
    return [Conversation(turns, id=_id(f), target=answer, meta=f.rest())]


def sharegpt(row: object, path: str = "") -> list[Record]:
    """{"conversations": [{"from", "value"}], "system"?, "tools"?, "chosen"? and "rejected"?, or "kto_tag"?}"""
    f = Fields(row, path)
    system, tools = _system(f), _tools(f)
    turns = (*system, *_spoken(f, "conversations"))
    candidates: tuple[Candidate, ...] = ()
    if _has(f, row, "chosen") or _has(f, row, "rejected"):
        candidates = _pair(_spoken(f, "chosen"), _spoken(f, "rejected"))
    elif _has(f, row, "kto_tag"):
        score = float(f.take("kto_tag", bool))
        if not turns or turns[-1].role != "assistant":
            raise DataError(f"{f.at('kto_tag')}: judges the last answer, and the last turn is no answer")
        turns, candidates = turns[:-1], (Candidate(turns[-1:], score),)
    return [Conversation(turns, id=_id(f), tools=tools, candidates=candidates, meta=f.rest())]


def oasst(row: object, path: str = "") -> list[Record]:
    """A tree of OpenAssistant: {"prompt": {"text", "role", "replies": [...]}}. A record for every turn that somebody answered;
    the answers are its candidates, by their rank. Earlier answers have weight 0, so that none is learned twice."""
    f = Fields(row, path)
    root, meta, records = f.take("prompt", dict), f.rest(), list[Record]()
    waiting: list[tuple[Json, str, tuple[Message, ...]]] = [(root, f.at("prompt"), ())]
    while waiting:
        node, at, before = waiting.pop()
        g = Fields(node, at)
        said, replies = g.take("text", str), g.take("replies", list, default=[])
        role = SPEAKERS.get(g.take("role", str))
        if role not in ("user", "assistant"):
            raise DataError(f"{g.at('role')}: expected 'prompter' or 'assistant'")
        here = (*before, Message(role, said, weight=0 if role == "assistant" else None))
        children = [(r, f"{g.at('replies')}.{i}", here) for i, r in enumerate(replies) if not _deleted(r)]
        waiting += reversed(children)
        if role == "user" and children:
            answers = sorted((Fields(r, p) for r, p, _ in children), key=lambda a: a.take("rank", int, default=1 << 30))
            candidates = _ranked([a.take("text", str) for a in answers], g.at("replies"))
            records.append(
                Conversation(here, id=g.take("message_id", str, default=""), candidates=candidates, meta=meta)
            )
    return records


def exported(row: object, path: str = "") -> list[Record]:
    """A conversation of ChatGPT's or Claude's export; of ChatGPT's tree the branch that was shown last, of neither what was not shown.
    What a tool said has no call here that it could answer, so such a conversation is refused."""
    f = Fields(row, path)
    where = "mapping" if _has(f, row, "mapping") else "chat_messages"
    f.take(where, dict, list)
    if (found := talk(row)) is None:
        raise DataError(f"{f.at(where)}: nothing was said")
    if found.unread or any(turn.role == "tool" for turn in found.turns):
        raise DataError(f"{f.at(where)}: has pictures, files or what a tool said, which is no text of anybody's")
    turns = tuple(Message(turn.role, turn.text) for turn in found.turns if not turn.hidden)
    return [Conversation(turns, id=_id(f), meta=f.rest())]


def _deleted(node: object) -> bool:
    return isinstance(node, dict) and node.get("deleted") is True


def _refuse(row: Json, names: Sequence[str], why: str, at: str = "") -> None:
    if found := next((name for name in names if row.get(name)), None):
        raise DataError(f"{at}{found}: {why}")


def refuse_unseen(row: object) -> None:
    """Raises DataError for a row with pictures or sounds, which no model of ours takes."""
    if isinstance(row, dict):
        _refuse(row, UNSEEN, "no model here sees pictures or hears; leave such rows out")


def _has(f: Fields, row: object, name: str) -> bool:
    return isinstance(row, dict) and row.get(name) is not None


def _id(f: Fields) -> str:
    return str(f.take("id", str, int, default=""))


def _system(f: Fields) -> tuple[Message, ...]:
    said = f.take("system", str, default="") or f.take("system_prompt", str, default="")
    return (Message("system", said),) if said else ()


def _said(f: Fields, name: str, role: Role) -> tuple[Message, ...]:
    """A text, one message or several."""
    value = f.take(name, str, list, dict)
    if isinstance(value, str):
        return (Message(role, value),)
    if isinstance(value, dict):
        return (Message.from_json(value, f.at(name)),)
    return tuple(Message.from_json(item, f"{f.at(name)}.{i}") for i, item in enumerate(value))


def _with_input(instruction: str, f: Fields) -> str:
    """Stanford's two fields are one question, with a blank line between."""
    given = f.take("input", str, default="") or f.take("context", str, default="")
    return f"{instruction}\n\n{given}" if given else instruction


def _without_alpaca(prompt: str) -> str:
    """What Alpaca's words were put around; the prompt as it is where they were not."""
    before, asks, rest = prompt.partition("### Instruction:\n")
    asked, answers, after = rest.rpartition("\n\n### Response:")
    if not (before.startswith(ALPACA_PROMPT) and asks and answers) or after.strip():
        return prompt
    instruction, _, given = asked.partition("\n\n### Input:\n")
    return f"{instruction}\n\n{given}" if given else instruction


def _pair(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Candidate, ...]:
    return Candidate(chosen, 1.0), Candidate(rejected, 0.0)


def _ranked(answers: list[object], path: str) -> tuple[Candidate, ...]:
    """Best first: scores from 1 down to 0 in equal steps."""
    for i, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise DataError(f"{path}.{i}: expected a string, found {kind_of(answer)}")
    steps = max(len(answers) - 1, 1)
    return tuple(Candidate((Message("assistant", str(a)),), 1 - i / steps) for i, a in enumerate(answers))


def _apart(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """What two conversations share, and how each goes on. What is shared ends before an answer."""
    n = 0
    while n < min(len(chosen), len(rejected)) - 1 and chosen[n] == rejected[n]:
        n += 1
    while n and chosen[n].role != "assistant":
        n -= 1
    if not n:
        raise DataError("chosen, rejected: they share no question that both answer")
    return chosen[:n], chosen[n:], rejected[n:]


def _human_assistant(said: str, path: str) -> tuple[Message, ...]:
    before, *parts = re.split(r"\n\n(Human|Assistant):", said)
    if before.strip() or not parts:
        raise DataError(f'{path}: expected a text that begins with "\\n\\nHuman:"')
    who: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(who[name], words.strip()) for name, words in zip(parts[::2], parts[1::2], strict=True))


def _tools(f: Fields) -> tuple[Json, ...]:
    """A list of tools, or the JSON text of one; a bare function becomes OpenAI's {"type": "function", ...}."""
    given = f.take("tools", str, list, default=[])
    if isinstance(given, str):
        given = _parsed(given, f.at("tools")) if given.strip() else []
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise DataError(f"{f.at('tools')}: expected a list of objects")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in given)


def _spoken(row: Fields, name: str) -> tuple[Message, ...]:
    """ShareGPT's turns, or one. Calls and results have no ids there: they get some, in order."""
    turns = row.take(name, list, dict)
    path = row.at(name)
    said: list[Message] = []
    made, open_calls = 0, list[str]()
    for at, turn in [(path, turns)] if isinstance(turns, dict) else [(f"{path}.{i}", t) for i, t in enumerate(turns)]:
        if (
            isinstance(turn, dict) and "role" in turn and "from" not in turn
        ):  # the name is ShareGPT's, the turns OpenAI's
            said.append(Message.from_json(turn, at))
            continue
        f = Fields(turn, at)
        who, words = f.take("from", str), f.take("value", str)
        if who in CALLS:
            calls = _calls(words, f.at("value"), made)
            made, open_calls = made + len(calls), [call.id for call in calls]
            said.append(Message("assistant", tool_calls=calls, meta=f.rest()))
        elif who in RESULTS:
            if not open_calls:
                raise DataError(f"{f.at('from')}: {who!r} is a tool's result, and no call before it waits for one")
            said.append(Message("tool", words, tool_call_id=open_calls.pop(0), meta=f.rest()))
        elif who in SPEAKERS:
            weight = f.take("weight", int, default=None)
            said.append(Message(SPEAKERS[who], words, weight=weight, meta=f.rest()))
        else:
            known = ", ".join((*SPEAKERS, *CALLS, *RESULTS))
            raise DataError(f"{f.at('from')}: {who!r} is none of {known}")
    return tuple(said)


def _calls(words: str, path: str, made: int) -> tuple[ToolCall, ...]:
    """The JSON of one call or of several. Ids are nine letters and digits, as Mistral's template wants them."""
    value = _parsed(words, path)
    calls = []
    for i, call in enumerate(value if isinstance(value, list) else [value]):
        f = Fields(call, f"{path}.{i}" if isinstance(value, list) else path)
        name, arguments = f.take("name", str), f.take("arguments", dict, str, default={})
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append(ToolCall(f"call{made + i + 1:05}", name, arguments))
    return tuple(calls)


def _parsed(words: str, path: str) -> object:
    try:
        return json.loads(words)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: not JSON: {e}") from None


def with_best(conversation: Conversation) -> Conversation:
    """The conversation with its best candidate as the answer, to fine-tune on; itself where it has none."""
    scored = [c for c in conversation.candidates if c.score is not None]
    if not scored:
        return conversation
    best = max(scored, key=lambda c: c.score or 0.0)
    return replace(conversation, messages=(*conversation.messages, *best.messages), candidates=())
