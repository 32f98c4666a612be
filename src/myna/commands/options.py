"""Flags that several verbs share. They are the fields of the dataclasses they fill, so the two cannot disagree."""

from typing import Annotated

from cyclopts import Parameter

from myna.provider.local import Loading
from myna.records import Sampling

SamplingFlags = Annotated[Sampling, Parameter(name="*", group="Sampling")]
LoadingFlags = Annotated[Loading, Parameter(name="*", group="Loading")]
