"""langchain-openai: over chat completions, and over responses."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


for responses in (False, True):
    model = ChatOpenAI(
        model="scripted",
        base_url=f"{sys.argv[1]}/v1",
        api_key="none",
        max_retries=0,
        use_responses_api=responses,
        store=False if responses else None,
    )
    reply = model.invoke("Hi")
    assert reply.text == "Hello from Myna. 你好!", reply
    assert "".join(chunk.text for chunk in model.stream("Hi")) == "Hello from Myna. 你好!"
    handy = model.bind_tools([weather])
    asked = HumanMessage("Hi")
    said = handy.invoke([asked])
    (call,) = said.tool_calls
    assert call["args"] == {"city": "Paris"}
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert "sunny in Paris" in handy.invoke([asked, said, result]).text
    person = model.with_structured_output(Person, method="json_schema").invoke("Hi")
    assert person == Person(name="Ada", age=36), person
    for _ in model.stream("count slowly"):
        break
