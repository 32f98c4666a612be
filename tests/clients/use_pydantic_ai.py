"""pydantic-ai: over chat completions, and over responses."""

import asyncio
import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    name: str
    age: int


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{sys.argv[1]}/v1", api_key="none")
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        model = kind("scripted", provider=provider)
        plain = Agent(model, instructions="Be brief.")
        assert (await plain.run("Hi")).output == "Hello from Myna. 你好!"
        async with plain.run_stream("Hi") as stream:
            assert await stream.get_output() == "Hello from Myna. 你好!"
        handy = Agent(model)

        @handy.tool_plain
        def weather(city: str) -> str:
            """The weather."""
            return f"sunny in {city}"

        assert "sunny in Paris" in (await handy.run("Hi")).output
        assert (await Agent(model, output_type=Person).run("Hi")).output == Person(name="Ada", age=36)
        native = Agent(model, output_type=NativeOutput(Person))
        assert (await native.run("Hi")).output == Person(name="Ada", age=36)
        slow = asyncio.create_task(plain.run("count slowly"))
        await asyncio.sleep(0.5)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


asyncio.run(main())
