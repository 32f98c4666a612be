"""Flows: plain async Python whose steps are written down, so that a run that was killed goes on where it was. No torch.

@step(calls=1)
async def rewrite(question: str, *, provider: Provider) -> str: ...

@flow(max_calls=rewrite.max_calls)
async def desk(question: str, *, provider: Provider) -> str:
    return await rewrite(question, provider=provider)

ended = await run(desk, Journal("flows.sqlite"), {"question": "..."}, {"provider": provider})
ended = await resume(desk, journal, ended.run, {"provider": provider})
"""

from myna.apps.flow.errors import FlowError, JournalError, NotDone, StepFailed
from myna.apps.flow.flow import Flow, flow
from myna.apps.flow.journal import Journal, journal_file
from myna.apps.flow.probe import Happened
from myna.apps.flow.run import Ended, answer, begin, open_questions, resume, run
from myna.apps.flow.scope import Here, gather, here
from myna.apps.flow.step import Step, step

__all__ = [
    "Ended",
    "Flow",
    "FlowError",
    "Happened",
    "Here",
    "Journal",
    "JournalError",
    "NotDone",
    "Step",
    "StepFailed",
    "answer",
    "begin",
    "flow",
    "gather",
    "here",
    "journal_file",
    "open_questions",
    "resume",
    "run",
    "step",
]
