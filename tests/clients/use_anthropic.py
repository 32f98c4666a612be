"""The anthropic package."""

import sys

import anthropic
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
ASK = {"model": "scripted", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {
    "name": "weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

reply = client.messages.create(**ASK, system="Be brief.", stop_sequences=["END"])
assert (reply.content[0].text, reply.stop_reason) == ("Hello from Myna. 你好!", "end_turn"), reply
assert reply.usage.input_tokens > 0
assert reply.usage.output_tokens > 0
with client.messages.stream(**ASK) as stream:
    assert "".join(stream.text_stream) == "Hello from Myna. 你好!"
    final = stream.get_final_message()
assert final.usage.input_tokens == client.messages.create(**ASK).usage.input_tokens
assert final.stop_reason == "end_turn"

with client.messages.stream(**ASK, tools=[TOOL], tool_choice={"type": "any"}) as stream:
    called = stream.get_final_message()
(use,) = [block for block in called.content if block.type == "tool_use"]
assert (use.name, use.input, called.stop_reason) == ("weather", {"city": "Paris"}, "tool_use")
result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
turns = [*ASK["messages"], {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
assert "sunny" in client.messages.create(**ASK | {"messages": turns}, tools=[TOOL]).content[0].text

parsed = client.messages.parse(**ASK, output_format=Person)
assert parsed.parsed_output == Person(name="Ada", age=36), parsed

for wrong, error in (
    ({"model": "claude"}, anthropic.NotFoundError),
    ({"extra_body": {"temperature": -1}}, anthropic.BadRequestError),
    ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError),
):
    try:
        client.messages.create(**ASK | wrong)
        raise AssertionError(f"{wrong} was not refused")
    except error:
        pass
try:
    client.messages.count_tokens(model="scripted", messages=ASK["messages"])
    raise AssertionError("a scripted model has no tokenizer, yet it counted")
except anthropic.BadRequestError:
    pass
slow = [{"role": "user", "content": "count slowly"}]
with client.messages.stream(**ASK | {"messages": slow}) as stream:
    next(iter(stream.text_stream))
