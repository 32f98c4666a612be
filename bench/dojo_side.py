"""AgentDojo's half of bench/dojo.py. Runs where `agentdojo` is installed and nothing of ours is; speaks JSON lines.

{"op": "suites"}                              tools, user tasks and injection tasks of every suite
{"op": "open", "suite", "user", "injection"}  a fresh environment, with AgentDojo's own attack text in all it can reach
{"op": "call", "tool", "arguments"}           runs the tool in that environment
{"op": "close", "said"}                       AgentDojo's verdicts, and the hash of the environment
"""

import datetime
import hashlib
import json
import sys
import types
import warnings
from collections.abc import Iterator

import yaml
from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from agentdojo.attacks.baseline_attacks import InjecAgentAttack
from agentdojo.default_suites.v1.tools import cloud_drive_client, email_client
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suites
from agentdojo.types import text_content_block_from_string

warnings.simplefilter("ignore")
yaml.safe_load = lambda text: yaml.load(text, yaml.CSafeLoader)  # a workspace in 0.04 s, not 0.34


class Still(datetime.datetime):
    """A clock that stands, so that two runs that do the same leave the same environment behind."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return datetime.datetime(2024, 5, 15, tzinfo=tz)


for module in (cloud_drive_client, email_client):
    module.datetime = types.SimpleNamespace(**{**vars(datetime), "datetime": Still})
SUITES = get_suites("v1.2.2")
ATTACKS = {name: InjecAgentAttack(suite, None) for name, suite in SUITES.items()}


def suites() -> Iterator[dict]:
    for name, suite in SUITES.items():
        tools = [
            {"name": f.name, "description": f.description, "parameters": f.parameters.model_json_schema()}
            for f in suite.tools
        ]
        yield {"suite": name, "tools": tools, "user": list(suite.user_tasks), "injection": list(suite.injection_tasks)}


class Run:
    """A task, its environment before and now, and the calls that were made."""

    def __init__(self, suite: str, user: str, injection: str | None):
        self.suite, self.user = SUITES[suite], SUITES[suite].user_tasks[user]
        self.injection = self.suite.injection_tasks[injection] if injection else None
        self.texts = ATTACKS[suite].attack(self.user, self.injection) if self.injection else {}
        self.env = self.user.init_environment(self.suite.load_and_inject_default_environment(self.texts))
        self.before = self.env.model_copy(deep=True)
        self.runtime = FunctionsRuntime(self.suite.tools)
        self.calls: list[FunctionCall] = []

    def told(self) -> dict:
        orders = self.injection.ground_truth(self.before.model_copy(deep=True)) if self.injection else []
        calls = self.user.ground_truth(self.before.model_copy(deep=True))
        return {
            "prompt": self.user.PROMPT,
            "calls": [{"tool": c.function, "arguments": dict(c.args)} for c in calls],
            "orders": [{"tool": c.function, "arguments": dict(c.args)} for c in orders],
            "says": self.user.GROUND_TRUTH_OUTPUT,
            "order_says": self.injection.GROUND_TRUTH_OUTPUT if self.injection else "",
            "goal": self.injection.GOAL if self.injection else "",
        }

    def call(self, tool: str, arguments: dict) -> dict:
        self.calls.append(FunctionCall(function=tool, args=arguments))
        result, error = self.runtime.run_function(self.env, tool, arguments)
        return {"error": error} if error else {"result": tool_result_to_str(result)}

    def close(self, said: str) -> dict:
        output = [text_content_block_from_string(said)]
        verdict = {"utility": self.suite._check_task_result(self.user, output, self.before, self.env, self.calls)}
        if self.injection:
            verdict["security"] = self.suite._check_task_result(
                self.injection, output, self.before, self.env, self.calls
            )
        return {**verdict, "state": hashlib.sha256(self.env.model_dump_json().encode()).hexdigest()}


def main() -> None:
    run: Run | None = None
    for line in sys.stdin:
        match json.loads(line):
            case {"op": "suites"}:
                answer: object = list(suites())
            case {"op": "open", "suite": suite, "user": user, "injection": injection}:
                run = Run(suite, user, injection)
                answer = run.told()
            case {"op": "call", "tool": tool, "arguments": arguments}:
                answer = run.call(tool, arguments)
            case {"op": "close", "said": said}:
                answer = run.close(said)
        print(json.dumps(answer), flush=True)


main()
