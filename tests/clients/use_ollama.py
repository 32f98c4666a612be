"""The ollama package."""

import sys

import ollama

client = ollama.Client(host=sys.argv[1])
HI = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": PARAMETERS}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}

assert [model.model for model in client.list().models] == ["scripted"]
assert [model.model for model in client.ps().models] == ["scripted"]
assert "completion" in client.show("scripted").capabilities
reply = client.chat("scripted", HI, options={"temperature": 0, "num_predict": 50})
assert (reply.message.content, reply.done_reason) == ("Hello from Myna. 你好!", "stop"), reply
assert reply.eval_count > 0
parts = list(client.chat("scripted", HI, stream=True))
assert "".join(part.message.content for part in parts) == "Hello from Myna. 你好!"
assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
assert client.generate("scripted", "Hi").response == "Hello from Myna. 你好!"
assert client.generate("scripted", "a", suffix="c").response == " and so on."

said = client.chat("scripted", HI, tools=[TOOL]).message
assert said.tool_calls[0].function.arguments == {"city": "Paris"}
told = [*HI, said, {"role": "tool", "content": "sunny", "tool_name": "weather"}]
assert "sunny" in client.chat("scripted", told).message.content
assert client.chat("scripted", HI, format=PERSON).message.content == '{"name": "Ada", "age": 36}'

for wrong in ({"model": "other"}, {"model": "scripted", "options": {"temperature": -1}}):
    try:
        client.chat(messages=HI, **wrong)
    except ollama.ResponseError as e:
        refusal = e
    assert refusal.status_code == (404 if "options" not in wrong else 400)
    assert "{" not in refusal.error, "the client shows the message, not a body"
for _ in client.chat("scripted", [{"role": "user", "content": "count slowly"}], stream=True):
    break
