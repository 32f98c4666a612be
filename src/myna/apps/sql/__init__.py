"""Questions to a database: `ask` answers one from rows, with three guards between the model's query and the data.

database.py    what a database is here, and how much a query may give     sqlite.py, duckdb.py, postgres.py: the three kinds
connect.py     a database by its address                                  card.py: what a model is told of it
form.py: what a second query can be at all
guard.py       what a query may be                                        functions.py: and call
answer.py      question -> query -> rows -> words                         numbers.py: where a number in the words comes from
chart.py       rows -> a picture                                          write.py: changes, which somebody approves
"""

from myna.apps.sql.answer import CALLS, Answer, Queried, ask, check_question, put, query
from myna.apps.sql.connect import connect
from myna.apps.sql.database import Database, Limits, Rows

__all__ = [
    "CALLS",
    "Answer",
    "Database",
    "Limits",
    "Queried",
    "Rows",
    "ask",
    "check_question",
    "connect",
    "put",
    "query",
]
