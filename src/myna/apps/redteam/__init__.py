"""Attacks on a model or an app, and how it takes them. We ship tests; nothing here makes attacks.

cases     what is asked: sets as JSON lines, and a small one of our own in English and Chinese
ask       who is asked: a model, an app behind its prompt file, an agent
run       asking, each answer kept in the trace; what was asked before is not asked again
refusal   does an answer refuse? A rule; `judge` asks a model
report    refusal and over-refusal, always both, and injections obeyed, with intervals
obedient  an attacker in the model's place, which does whatever the last untrusted text says
"""

from myna.apps.redteam.ask import Answer, Target, app, clerk, model
from myna.apps.redteam.cases import Case, drawn, packaged, read, whole
from myna.apps.redteam.judge import judge
from myna.apps.redteam.obedient import obedient
from myna.apps.redteam.refusal import Refusal, refusal
from myna.apps.redteam.report import Rate, Report, report
from myna.apps.redteam.run import Result, results

__all__ = [
    "Answer",
    "Case",
    "Rate",
    "Refusal",
    "Report",
    "Result",
    "Target",
    "app",
    "clerk",
    "drawn",
    "judge",
    "model",
    "obedient",
    "packaged",
    "read",
    "refusal",
    "report",
    "results",
    "whole",
]
