"""llama-index, with its client for servers like OpenAI's."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


model = OpenAILike(
    model="scripted",
    api_base=f"{sys.argv[1]}/v1",
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    max_retries=0,
)
hi = ChatMessage(role="user", content="Hi")
assert model.chat([hi]).message.content == "Hello from Myna. 你好!"
assert "".join(part.delta or "" for part in model.stream_chat([hi])) == "Hello from Myna. 你好!"
result = model.predict_and_call([FunctionTool.from_defaults(weather)], user_msg="Hi")
assert "sunny in Paris" in str(result), result
person = model.as_structured_llm(Person).chat([hi]).raw
assert person == Person(name="Ada", age=36), person
stream = model.stream_chat([ChatMessage(role="user", content="count slowly")])
next(stream)
stream.close()
