"""Answers out of an index of documents, whose citations always resolve.

gate.py        whether to search at all, and whether what was found is enough
queries.py     a follow-up question on its own feet; one question asked in several ways
rounds.py      whether what was found is enough, and what to search for next
passages.py    what the model is shown, and what it is asked
citations.py   what it said: sentences, their citations, and the words of the documents that they rest on
answer.py      all of it in order
schema.py      a schema of values as one of values with their evidence
extract.py     fields of a schema out of a document, each with its words
"""

from myna.apps.answers.answer import CALLS, Answer, Turn, answer
from myna.apps.answers.citations import Sentence, Source
from myna.apps.answers.gate import Decision
from myna.apps.answers.rounds import Round

__all__ = ["CALLS", "Answer", "Decision", "Round", "Sentence", "Source", "Turn", "answer"]
