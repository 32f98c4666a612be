"""What calls, tools and checks did, kept in one SQLite file. No torch, and nothing is sent anywhere."""

from myna.trace.prices import Price, Prices
from myna.trace.store import TraceError
from myna.trace.trace import Span, Trace, here

__all__ = ["Price", "Prices", "Span", "Trace", "TraceError", "here"]
