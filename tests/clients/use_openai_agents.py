"""openai-agents: over responses, and over chat completions."""

import asyncio
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


@function_tool
def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        model = kind(model="scripted", openai_client=client)
        plain = Agent(name="plain", instructions="Be brief.", model=model)
        assert (await Runner.run(plain, "Hi")).final_output == "Hello from Myna. 你好!"
        streamed = Runner.run_streamed(plain, "Hi")
        kinds = [event.type async for event in streamed.stream_events()]
        assert "raw_response_event" in kinds
        assert streamed.final_output == "Hello from Myna. 你好!"
        handy = Agent(name="handy", model=model, tools=[weather])
        assert "sunny in Paris" in (await Runner.run(handy, "Hi")).final_output
        exact = Agent(name="exact", model=model, output_type=Person)
        assert (await Runner.run(exact, "Hi")).final_output == Person(name="Ada", age=36)
        slow = asyncio.create_task(Runner.run(plain, "count slowly"))
        await asyncio.sleep(0.5)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


asyncio.run(main())
