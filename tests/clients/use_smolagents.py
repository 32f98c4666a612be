"""smolagents: its model class, and its agent that calls tools."""

import sys

from smolagents import OpenAIServerModel, Tool, ToolCallingAgent
from smolagents.models import ChatMessage, MessageRole


class Weather(Tool):
    name = "weather"
    description = "The weather."
    inputs = {"city": {"type": "string", "description": "Where"}}  # noqa: RUF012
    output_type = "string"

    def forward(self, city: str) -> str:
        return f"sunny in {city}"


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def ask(words: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": words}])]


model = OpenAIServerModel("scripted", api_base=f"{sys.argv[1]}/v1", api_key="none", client_kwargs={"max_retries": 0})
assert model.generate(ask("Hi")).content == "Hello from Myna. 你好!"
assert "".join(part.content or "" for part in model.generate_stream(ask("Hi"))) == "Hello from Myna. 你好!"
form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
assert model.generate(ask("Hi"), response_format=form).content == '{"name": "Ada", "age": 36}'
agent = ToolCallingAgent(tools=[Weather()], model=model, max_steps=3, verbosity_level=0)
assert "sunny in Paris" in str(agent.run("How is the weather?"))
stream = model.generate_stream(ask("count slowly"))
next(stream)
stream.close()
