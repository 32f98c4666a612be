"""An agent: a model in a loop with tools, within limits, that never does unasked what a stranger's text may have asked for. No torch.

    agent = Agent("clerk", "You keep the shop's books.", tools=(query, add_note), limits=Limits(steps=10, tokens=20_000))
    ended = await run(agent, "How many invoices of May are unpaid?", provider, ask=at_terminal)
    ended.reason, ended.answer, ended.spent

loop.py    turn after turn, until something says enough   session.py  what it knows on its way, to write down and go on with
turn.py    one turn of the model                          window.py   what still fits: the oldest is told in short
speech.py  how it says what it calls: natively, in calls  stall.py    whether it goes round in circles
           alone (bound.py), as text (react.py)           plan.py     a plan; an item is done when a result shows it
desk.py    where its calls are executed                   memory.py   what is kept beyond a session
own.py     the tools that it has of itself                team.py     agents as tools
egress.py  links and images of an answer made harmless    file.py     an agent as a file
"""

from myna.apps.agent.agent import Agent, Compacted, Ended, Event, Reason, Retried, Said
from myna.apps.agent.loop import run, steps
from myna.apps.agent.memory import Memory
from myna.apps.agent.session import Session
from myna.provider.budget import Limits

__all__ = [
    "Agent",
    "Compacted",
    "Ended",
    "Event",
    "Limits",
    "Memory",
    "Reason",
    "Retried",
    "Said",
    "Session",
    "run",
    "steps",
]
