"""POST /v1/responses."""

from starlette.routing import Route

from myna.provider.wire.frames import NAMED_EVENTS
from myna.provider.wire.responses import read_responses
from myna.provider.wire.responses_writer import ResponsesWriter
from myna.serve.complete import Completions
from myna.serve.desk import Desk


def routes(desk: Desk) -> list[Route]:
    answer = Completions(desk, read_responses, ResponsesWriter, NAMED_EVENTS)
    return [Route("/v1/responses", answer, methods=["POST"])]
