"""The openai package: chat, completions and responses."""

import sys

import openai
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
HI = [{"role": "user", "content": "Hi"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}

# chat
reply = client.chat.completions.create(model="scripted", messages=HI)
assert reply.choices[0].message.content == "Hello from Myna. 你好!", reply
chunks = client.chat.completions.create(model="scripted", messages=HI, stream=True)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello from Myna. 你好!"
said = client.chat.completions.create(model="scripted", messages=HI, tools=[TOOL]).choices[0]
assert said.finish_reason == "tool_calls"
(call,) = said.message.tool_calls
assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
told = [*HI, said.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
assert "sunny" in client.chat.completions.create(model="scripted", messages=told).choices[0].message.content
parsed = client.chat.completions.parse(model="scripted", messages=HI, response_format=Person)
assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)

# completions
assert client.completions.create(model="scripted", prompt="Once", suffix="end").choices[0].text == " and so on."

# responses
answer = client.responses.create(model="scripted", input="Hi")
assert answer.output_text == "Hello from Myna. 你好!", answer
with client.responses.stream(model="scripted", input="Hi") as stream:
    assert [event.type for event in stream][-1] == "response.completed"
    assert stream.get_final_response().output_text == "Hello from Myna. 你好!"
flat = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
first = client.responses.create(model="scripted", input=HI, tools=[flat])
(call,) = [item for item in first.output if item.type == "function_call"]
output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
second = client.responses.create(model="scripted", input=[*HI, *first.output, output], tools=[flat])
assert "sunny" in second.output_text
person = client.responses.parse(model="scripted", input="Hi", text_format=Person).output_parsed
assert person == Person(name="Ada", age=36)

# exceptions, and giving up
for wrong, error in (({"model": "gpt"}, openai.NotFoundError), ({"temperature": -1}, openai.BadRequestError)):
    for create in (client.chat.completions.create, client.responses.create):
        words = {"input": "Hi"} if create == client.responses.create else {"messages": HI}
        try:
            create(**({"model": "scripted"} | words | wrong))
        except error:
            continue
        raise AssertionError(f"{wrong} was not refused")
try:
    client.moderations.create(input="Hi")
    raise AssertionError("there is no check, yet there was a verdict")
except openai.NotFoundError:
    pass
slow = [{"role": "user", "content": "count slowly"}]
with client.chat.completions.create(model="scripted", messages=slow, stream=True) as stream:
    next(iter(stream))
with client.responses.create(model="scripted", input="count slowly", stream=True) as stream:
    next(iter(stream))
