"""The chat page: a few files of package data, under a policy that lets them run nothing but themselves."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # ask again each time; the etag makes that cheap, and an update shows at once
}


def page_routes() -> list[Route]:
    """/, /docs and /page/NAME. The files are read once, so a path in a request never reaches the file system."""
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}

    async def docs(request: Request) -> Response:
        return give(request, "docs.html")

    async def answer(request: Request) -> Response:
        return give(request, request.path_params.get("name", "index.html"))

    def give(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        etag = f'"{hashlib.sha256(files[name]).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=HEADERS | {"etag": etag})
        return Response(files[name], media_type=TYPES[Path(name).suffix], headers=HEADERS | {"etag": etag})

    return [Route("/", answer), Route("/docs", docs), Route("/page/{name}", answer)]
