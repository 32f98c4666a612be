"""/v1/files and /v1/batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from myna.provider.wire.batch import PURPOSES, read_order, write_batch, write_file, write_list
from myna.records import Json, RequestError
from myna.serve.account import ACCOUNT
from myna.serve.answer import JsonResponse
from myna.serve.batches import Batches, new_batch
from myna.serve.desk import Desk
from myna.serve.receive import pieces, receive_body
from myna.serve.store import Batch, File, Store, needing_room

MAX_ORDER = 1 << 16  # bytes of an order for a batch
ENVELOPE = 1 << 16  # bytes that an upload's own parts may take besides the file
CHUNK = 1 << 18
PAGE, LONGEST_PAGE = 20, 10_000


def routes(desk: Desk, batches: Batches) -> list[Route]:
    return [*_file_routes(desk, batches.store), *_batch_routes(desk, batches)]


def _file_routes(desk: Desk, store: Store) -> list[Route]:
    async def create(request: Request) -> Response:
        with desk.admit(), needing_room():
            return JsonResponse(_file(await _upload(request, store, desk.limits.max_file)))

    async def listed(request: Request) -> Response:
        purpose = request.query_params.get("purpose")
        found = await asyncio.to_thread(store.files, _owner())
        rows = [_file(file) for file in found if purpose in (None, file.purpose)]
        return JsonResponse(_page(rows, request, LONGEST_PAGE))

    async def show(request: Request) -> Response:
        return JsonResponse(_file(await asyncio.to_thread(store.file, request.path_params["id"], _owner())))

    async def delete(request: Request) -> Response:
        id = request.path_params["id"]
        await asyncio.to_thread(store.delete, id, _owner())
        return JsonResponse({"id": id, "object": "file", "deleted": True})

    async def content(request: Request) -> Response:
        path = await asyncio.to_thread(store.content, request.path_params["id"], _owner())
        size = str(path.stat().st_size)
        headers = {"content-length": size, "x-content-type-options": "nosniff", "content-disposition": "attachment"}
        return StreamingResponse(_content(path), media_type="application/octet-stream", headers=headers)

    return [
        Route("/v1/files", create, methods=["POST"]),
        Route("/v1/files", listed, methods=["GET"]),
        Route("/v1/files/{id}", show, methods=["GET"]),
        Route("/v1/files/{id}", delete, methods=["DELETE"]),
        Route("/v1/files/{id}/content", content, methods=["GET"]),
    ]


def _batch_routes(desk: Desk, batches: Batches) -> list[Route]:
    store = batches.store

    async def create(request: Request) -> Response:
        with desk.admit(), needing_room():
            order = read_order(await receive_body(request.headers, request.receive, MAX_ORDER))
            try:
                await asyncio.to_thread(store.file, order["input_file_id"], _owner())
            except RequestError as e:
                raise RequestError(str(e), param="input_file_id", code=e.code) from None
            batch = new_batch(order, _owner())
            await asyncio.to_thread(store.save, batch)
            batches.add(batch)
            return JsonResponse(_batch(batch, store))

    async def listed(request: Request) -> Response:
        found = await batches.all_of(_owner())
        return JsonResponse(_page([_batch(b, store) for b in reversed(found)], request, PAGE))

    async def show(request: Request) -> Response:
        return JsonResponse(_batch(await batches.one(request.path_params["id"], _owner()), store))

    async def cancel(request: Request) -> Response:
        return JsonResponse(_batch(await batches.cancel(request.path_params["id"], _owner()), store))

    return [
        Route("/v1/batches", create, methods=["POST"]),
        Route("/v1/batches", listed, methods=["GET"]),
        Route("/v1/batches/{id}", show, methods=["GET"]),
        Route("/v1/batches/{id}/cancel", cancel, methods=["POST"]),
    ]


async def _upload(request: Request, store: Store, limit: int) -> File:
    """Take a multipart upload: on disk as it comes in, refused as soon as it is too large."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RequestError("Send the file as multipart/form-data, with its purpose.", code="invalid_type")
    limit = min(limit, await asyncio.to_thread(store.room))
    body = pieces(request.headers, request.receive, limit + ENVELOPE, _too_large(limit))
    parser = MultiPartParser(request.headers, body, max_files=1, max_fields=8)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as e:
        raise RequestError(f"The upload cannot be read: {e}.", code="invalid_type") from None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise RequestError("file is missing.", param="file", code="missing_required_parameter")
        if purpose not in PURPOSES:
            raise RequestError(f"purpose: expected one of {', '.join(PURPOSES)}.", param="purpose")
        if (file.size or 0) > limit:
            raise _too_large(limit)
        return await asyncio.to_thread(_keep, store, file, str(purpose), _owner())


def _keep(store: Store, upload: UploadFile, purpose: str, owner: str) -> File:
    id, path = store.begin()
    try:
        upload.file.seek(0)
        with open(path, "xb") as target:
            while piece := upload.file.read(CHUNK):
                target.write(piece)
        return store.add(id, (upload.filename or "file")[:255], purpose, owner)
    except BaseException:
        store.discard(id)
        raise


async def _content(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK):
            yield piece


def _page(rows: list[Json], request: Request, usual: int) -> Json:
    """`limit` rows after the one that `after` names."""
    text, after = request.query_params.get("limit", str(usual)), request.query_params.get("after")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LONGEST_PAGE):
        raise RequestError(f"limit: expected a number from 1 to {LONGEST_PAGE}.", param="limit")
    ids = [row["id"] for row in rows]
    start = ids.index(after) + 1 if after in ids else 0
    if after is not None and not start:
        raise RequestError(f"after: there is no {after[:80]!r}.", param="after")
    return write_list(rows[start : start + int(text)], len(rows) > start + int(text))


def _owner() -> str:
    account = ACCOUNT.get()
    return account.caller.name if account and account.caller else ""


def _file(file: File) -> Json:
    return write_file(file.id, file.bytes, file.created_at, file.filename, file.purpose)


def _batch(batch: Batch, store: Store) -> Json:
    return write_batch(batch, store.has(batch.output_id), store.has(batch.error_id))


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The upload is larger than {max(limit, 0):,} bytes.", param="file", code="request_too_large")
