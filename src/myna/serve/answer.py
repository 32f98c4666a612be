"""JSON as a response."""

import orjson
from starlette.responses import Response

from myna.records import Json


class JsonResponse(Response):
    """orjson's compact UTF-8: Chinese stays readable."""

    media_type = "application/json"

    def render(self, content: Json) -> bytes:
        return orjson.dumps(content)
