"""The few operations where the machine's limit is decided: C++ behind a plain C interface, and torch saying the same."""

from myna.kernels.adapters import Adapters, LowRank
from myna.kernels.build import Unavailable, library
from myna.kernels.formats import FORMATS, GROUP, UNIT, Format
from myna.kernels.pages import PageFormat
from myna.kernels.program import Program, Step, row_bytes
from myna.kernels.routes import Routes

__all__ = [
    "FORMATS", "GROUP", "UNIT", "Adapters", "Format", "LowRank", "PageFormat", "Program", "Routes", "Step", "Unavailable", "library", "row_bytes",
]  # fmt: skip
