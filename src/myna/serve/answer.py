"""JSON as a response, and its header that names what was ignored."""

import orjson
from starlette.responses import Response

from myna.records import Json

IGNORED_SHOWN = 1000  # characters of the X-Ignored-Params header


class JsonResponse(Response):
    """orjson's compact UTF-8: Chinese stays readable."""

    media_type = "application/json"

    def render(self, content: Json) -> bytes:
        return orjson.dumps(content)


def ignored_header(names: tuple[str, ...]) -> dict[str, str]:
    """X-Ignored-Params, made safe for a header: a client chose these names. Nothing where nothing was ignored."""
    if not names:
        return {}
    text = ",".join("".join(c if "!" <= c <= "~" and c != "," else "?" for c in name) or "?" for name in names)
    return {"x-ignored-params": text if len(text) <= IGNORED_SHOWN else text[: IGNORED_SHOWN - 3] + "..."}
