"""Dialects beside what their makers publish: chat templates of the families, OpenAI's Harmony library, Mistral's tokenizers.

None of these is a dependency. `pip install --no-deps trl openai-harmony` and `pip install mistral-common` bring them; Harmony also
wants TIKTOKEN_ENCODINGS_BASE to name a folder with o200k_base.tiktoken.
"""

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chat_tiny import write_model
from test_dialects import HARD, NONE, SCHEMA, TOOLS, WEATHER, hear, meaning, wrote

from myna.chat import Chat
from myna.chat.dialects import dialect
from myna.records import Conversation, Message, ToolCall

# The templates that trl carries, and the dialect of each. Those that take no tools are told of them in our words.
SPOKEN = {
    "cohere2": "generic",
    "deepseek_r1_distill": "deepseek",
    "deepseekv3": "deepseek",
    "gemma": "generic",
    "gemma3": "generic",
    "glm4moe": "glm",
    "gptoss": "harmony",
    "lfm2_2_5": "pythonic",
    "llama3": "generic",
    "llama3_1": "llama3",
    "llama3_2": "llama3",
    "nemotron_3_nano": "qwen3_coder",
    "phi3": "generic",
    "qwen2_5": "hermes",
    "qwen3": "hermes",
    "qwen3_5_think": "qwen3_coder",
    "qwen3_instruct_2507": "hermes",
}
# What a template can write: some take one call at a time, R1's closes the list after the second, LFM2's escapes no quote.
CALLS = {name: [WEATHER] for name in ("llama3_1", "llama3_2", "gptoss", "deepseek_r1_distill")} | {
    "lfm2_2_5": [WEATHER, NONE]
}
ASKED = Conversation.ask(
    "Hello",
    tools=tuple(
        {"type": "function", "function": {"name": name, "description": "x", "parameters": parameters}}
        for name, parameters in TOOLS.items()
    ),
)


def template(name: str) -> str:
    spec = importlib.util.find_spec("trl")  # found, not imported: it would bring torch
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is not installed, whose package carries these chat templates")
    path = Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"this trl has no {name}.jinja")
    return path.read_text()


@pytest.mark.parametrize("name", SPOKEN)
def test_the_real_templates_calls_read_back(name: str, tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path, "byte_level", "chatml"), template=template(name))
    assert chat.dialect.name == SPOKEN[name]
    calls = CALLS.get(name, [WEATHER, HARD, NONE])
    given = tuple(ToolCall(f"functions.{c.name}:{i}", c.name, c.arguments) for i, c in enumerate(calls))
    ids = chat.render(ASKED).ids, chat.render(ASKED + Message("assistant", tool_calls=given), open_turn=False).ids
    prompt, whole = (b"".join(map(chat.tokenizer.piece, row)).decode() for row in ids)
    shared = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    half = whole.rfind("<", 0, shared)  # two markers may begin alike
    answer = whole[shared if ">" in whole[half:shared] else half :]
    answer = re.split(r"<\|eot_id\|>|<\|im_end\|>|<end_of_turn>|<\|end\|>\n|<｜end▁of▁sentence｜>|<\|END_", answer)[0]
    heard = hear(chat.dialect, list(answer), TOOLS)
    assert meaning(heard) == [(c.name, json.loads(c.arguments), True) for c in calls]
    assert "call" not in heard[0]


@cache
def harmony() -> Any:
    library = pytest.importorskip("openai_harmony")
    try:
        return library, library.load_harmony_encoding(library.HarmonyEncodingName.HARMONY_GPT_OSS)
    except library.HarmonyError as e:
        pytest.skip(f"{e}; set TIKTOKEN_ENCODINGS_BASE to a folder with o200k_base.tiktoken")


@pytest.mark.parametrize("call", [WEATHER, HARD, NONE], ids=["one", "hard", "none"])
def test_openai_reads_the_calls_we_write_and_we_those_it_writes(call: ToolCall) -> None:
    library, encoding = harmony()
    ids = encoding.encode(wrote(dialect("harmony"), call), allowed_special="all")
    (read,) = encoding.parse_messages_from_completion_tokens(ids, library.Role.ASSISTANT)
    assert (read.recipient, read.content[0].text) == (f"functions.{call.name}", call.arguments)
    assistant = library.Message.from_role_and_content
    thought = assistant(library.Role.ASSISTANT, "Hm.\n\nSo.").with_channel("analysis")
    preamble = assistant(library.Role.ASSISTANT, "I look it up. ").with_channel("commentary")
    final = assistant(library.Role.ASSISTANT, "It is 北京.").with_channel("final")
    made = assistant(library.Role.ASSISTANT, call.arguments).with_channel("commentary")
    made = made.with_recipient(f"functions.{call.name}").with_content_type("<|constrain|>json")
    for messages, said in (
        ([thought, preamble, made], "I look it up."),
        ([made], ""),
        ([thought, final], "It is 北京."),
    ):
        text = encoding.decode([id for message in messages for id in encoding.render(message)])
        text = text.removeprefix("<|start|>assistant")
        heard = hear(dialect("harmony"), list(text))
        assert heard[0].strip() == said
        assert heard[1] == ("Hm.\n\nSo." if thought in messages else "")
        assert meaning(heard) == ([(call.name, json.loads(call.arguments), True)] if made in messages else [])


@pytest.mark.parametrize("file", ["tekken_240911.json", "tekken_240718.json"])
def test_mistral_writes_calls_that_we_read(file: str) -> None:
    pytest.importorskip("mistral_common")
    from mistral_common.protocol.instruct.messages import AssistantMessage, ToolMessage, UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool
    from mistral_common.protocol.instruct.tool_calls import ToolCall as Call
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    mistral = dialect("mistral")
    calls = [WEATHER, HARD, NONE]
    ids = [
        mistral.prompt_id(f"call_{i}", c.name, i) for i, c in enumerate(calls)
    ]  # its validator takes this form alone
    made = [
        Call(id=id, function=FunctionCall(name=c.name, arguments=c.arguments)) for id, c in zip(ids, calls, strict=True)
    ]
    request: Any = ChatCompletionRequest(
        tools=[Tool(function=Function(name="get_weather", parameters=SCHEMA))],
        messages=[UserMessage(content="Hi"), AssistantMessage(content=None, tool_calls=made),
                  *(ToolMessage(tool_call_id=id, name="x", content="1") for id in ids)],
    )  # fmt: skip
    data = Path(importlib.util.find_spec("mistral_common").submodule_search_locations[0]) / "data"  # type: ignore
    text = MistralTokenizer.from_file(str(data / file)).encode_chat_completion(request).text
    assert text is not None
    answer = text.partition("[/INST]")[2].partition("</s>")[0]
    assert meaning(hear(mistral, list(answer))) == [(c.name, json.loads(c.arguments), True) for c in calls]
    ours = re.sub(r'(?<=\}), "id": "\w{9}"(?=\})', "", answer)
    assert ours == wrote(mistral, *calls)
