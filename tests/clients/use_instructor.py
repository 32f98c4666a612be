"""instructor: structured answers through tools, JSON Schema and JSON mode."""

import sys

import instructor
import openai
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


plain = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
HI = [{"role": "user", "content": "Hi"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
    client = instructor.from_openai(plain, mode=mode)
    found = client.chat.completions.create(model="scripted", messages=HI, response_model=Person, max_retries=0)
    assert found.model_dump() == {"name": "Ada", "age": 36}, (mode, found)
parts = instructor.from_openai(plain, mode=instructor.Mode.TOOLS).chat.completions.create_partial(
    model="scripted", messages=HI, response_model=Person, max_retries=0
)
assert list(parts)[-1].name == "Ada"
slow = [{"role": "user", "content": "count slowly"}]
with plain.chat.completions.create(model="scripted", messages=slow, stream=True) as stream:
    next(iter(stream))
