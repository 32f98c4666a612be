"""Files and batches: on the disk, through the official client, and whole after a kill -9."""

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from live_server import Live, eventually

from myna.provider import Scripted
from myna.provider.replay import replay
from myna.provider.wire.batch import ENDPOINTS, read_order
from myna.records import MynaError, RequestError, Unavailable
from myna.serve import Keys, Limits, create_app, key_of
from myna.serve import batches as batches_module
from myna.serve import files as files_module
from myna.serve import store as store_module
from myna.serve.batches import Batches, new_batch
from myna.serve.keys import new_key
from myna.serve.store import Store, append

Start = Callable[..., Live]


def client_of(live: Live, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)


def line(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> str:
    body = {"messages": [{"role": "user", "content": custom_id}]} | body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def run_batch(client: openai.OpenAI, text: str, endpoint: Any = "/v1/chat/completions") -> Any:
    file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    ended = ("completed", "failed", "cancelled")
    eventually(lambda: client.batches.retrieve(batch.id).status in ended, 30)
    return client.batches.retrieve(batch.id)


def rows(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()]


# Files.


def test_a_file_comes_back_byte_for_byte_and_is_gone_when_it_is_deleted(live: Start, tmp_path: Path) -> None:
    client = client_of(live([], data=tmp_path))
    data = os.urandom(3_000_000)
    file = client.files.create(file=("数据.bin", data), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose) == (len(data), "数据.bin", "user_data")
    assert client.files.content(file.id).read() == data
    assert [f.id for f in client.files.list()] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    "id",
    [
        "../batches/x",
        "..%2f..%2fetc%2fpasswd",
        "file-" + "0" * 32,
        "file-" + "0" * 31 + "/",
        "batch_" + "0" * 32,
        "%00",
    ],
)
@pytest.mark.parametrize("rest", ["", "/content"])
def test_no_path_leads_out_of_the_folder(live: Start, tmp_path: Path, id: str, rest: str) -> None:
    (tmp_path / "secret").write_text("secret")
    server = live([], data=tmp_path / "data")
    answer = httpx.get(f"{server.url}/v1/files/{id}{rest}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_filename_is_a_name_and_no_path(live: Start, tmp_path: Path) -> None:
    client = client_of(live([], data=tmp_path / "data"))
    file = client.files.create(file=("../../evil", b"x"), purpose="batch")
    assert client.files.content(file.id).read() == b"x"
    assert not (tmp_path / "evil").exists()


def test_sizes_are_limited_for_each_and_for_all(live: Start, tmp_path: Path) -> None:
    server = live([], data=tmp_path, limits=Limits(max_file=1_000_000, max_files=1_500_000))
    client = client_of(server)
    with pytest.raises(openai.APIStatusError) as large:
        client.files.create(file=("a", b"x" * 1_000_001), purpose="batch")
    with pytest.raises(openai.APIStatusError) as huge:
        client.files.create(file=("a", b"x" * 20_000_000), purpose="batch")
    client.files.create(file=("a", b"x" * 1_000_000), purpose="batch")
    with pytest.raises(openai.APIStatusError) as full:
        client.files.create(file=("a", b"x" * 1_000_000), purpose="batch")
    assert {e.value.status_code for e in (large, huge, full)} == {413}
    assert len([*(tmp_path / "files").glob("file-*")]) == 2


@pytest.mark.parametrize(
    "options",
    [{"json": {}}, {"files": {"file": b"x"}}, {"data": {"purpose": "batch"}, "files": {"other": b"x"}},
     {"files": {"file": b"x"}, "data": {"purpose": "evil"}},
     {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
     {"content": b"", "headers": {"content-type": "multipart/form-data"}}],
)  # fmt: skip
def test_a_bad_upload_is_refused_and_leaves_nothing(live: Start, tmp_path: Path, options: dict[str, Any]) -> None:
    answer = httpx.post(f"{live([], data=tmp_path).url}/v1/files", **options)
    assert answer.status_code == 400
    assert list((tmp_path / "files").iterdir()) == []


def test_what_one_key_brought_no_other_sees(live: Start, tmp_path: Path) -> None:
    mine, other = new_key(), new_key()
    server = live(Scripted(cycle(["ok"])), data=tmp_path, keys=Keys([key_of(mine, "a"), key_of(other, "b")]))
    client, stranger = client_of(server, mine), client_of(server, other)
    batch = run_batch(client, line("a"))
    assert [*stranger.files.list()] == [*stranger.batches.list()] == []
    for id in (batch.input_file_id, batch.output_file_id):
        with pytest.raises(openai.NotFoundError):
            stranger.files.content(id)
        with pytest.raises(openai.NotFoundError):
            stranger.files.delete(id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.cancel(batch.id)


def test_a_folder_belongs_to_one_server(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits())
    with pytest.raises(MynaError, match="another server"):
        Store(tmp_path, Limits())
    store.close()
    Store(tmp_path, Limits()).close()


def test_without_a_folder_there_are_no_files(live: Start) -> None:
    assert httpx.get(f"{live([]).url}/v1/files").status_code == 404


# Batches.


def test_every_line_is_answered_as_its_own_request_would_be(live: Start, tmp_path: Path) -> None:
    server = live(Scripted(cycle([lambda what: what.messages[-1].text[::-1]])), data=tmp_path)
    client = client_of(server)
    ids = [f"line-{i}" for i in range(60)]
    batch = run_batch(client, "".join(map(line, ids)))
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 60, 60)
    assert batch.error_file_id is None
    found = {
        row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"]
        for row in rows(client, batch.output_file_id)
    }
    assert found == {id: id[::-1] for id in ids}
    assert [b.id for b in client.batches.list()] == [batch.id]


def test_lines_that_fail_are_in_the_error_file_and_harm_no_other(live: Start, tmp_path: Path) -> None:
    script = cycle([lambda what: RequestError("no") if what.messages[-1].text == "bad" else "ok"])
    client = client_of(live(Scripted(script), data=tmp_path))
    batch = run_batch(
        client, line("a") + line("bad") + line("hot", temperature=-1) + line("lost", model="none") + line("b")
    )
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 3)
    assert {row["custom_id"] for row in rows(client, batch.output_file_id)} == {"a", "b"}
    failed = {row["custom_id"]: row["response"] for row in rows(client, batch.error_file_id)}
    assert {id: r["status_code"] for id, r in failed.items()} == {"bad": 400, "hot": 400, "lost": 404}
    assert failed["hot"]["body"]["error"]["param"] == "temperature"


def test_a_batch_that_ends_while_the_disk_is_read_is_shown_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Limits())
    batch = new_batch({"endpoint": "/v1/chat/completions", "input_file_id": "f", "completion_window": "24h"}, "me")
    store.save(batch)
    batches = Batches(store, None, lambda: False)  # type: ignore[arg-type]

    def ends_after(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*given: Any) -> Any:
            found = read(*given)
            batches._live[batch.id].reach("failed")
            store.save(batches._live.pop(batch.id))
            return found

        return reading

    async def seen() -> list[str]:
        batches.add(batch)
        for of_others in (batches.one, batches.cancel):
            with pytest.raises(RequestError):
                await of_others(batch.id, "somebody else")
        monkeypatch.setattr(store, "batch", ends_after(store.batch))
        shown = (await batches.one(batch.id, "me")).status
        monkeypatch.setattr(store, "batches", ends_after(store.batches))
        listed = [one.status for one in await batches.all_of("me")]
        return [shown, *listed]

    assert asyncio.run(seen()) == ["validating", "failed"]
    monkeypatch.undo()
    with pytest.raises(RequestError, match="failed already"):
        asyncio.run(batches.cancel(batch.id, "me"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no lines"), ("{\n", "not JSON"), (line("a") * 2, "used twice"), (line("a", "/v1/completions"), "url"),
     (line("a", stream=True), "streamed"), ('{"custom_id": "a"}', "method"), (line("ok") + "[]", "object")],
)  # fmt: skip
def test_a_file_with_a_bad_line_is_not_begun_and_the_line_is_named(
    live: Start, tmp_path: Path, text: str, words: str
) -> None:
    provider = Scripted(cycle(["ok"]))
    client = client_of(live(provider, data=tmp_path))
    batch = run_batch(client, text)
    assert batch.status == "failed"
    assert batch.errors
    assert words in batch.errors.data[0].message
    assert provider.requests == []


@pytest.mark.parametrize(
    ("change", "param"),
    [({"endpoint": "/v1/files"}, "endpoint"), ({"input_file_id": "file-x"}, "input_file_id"),
     ({"completion_window": "1h"}, "completion_window"), ({"metadata": {"a": 1}}, "metadata"), ({"endpoint": None}, "endpoint")],
)  # fmt: skip
def test_a_bad_order_is_refused(live: Start, tmp_path: Path, change: dict[str, Any], param: str) -> None:
    server = live([], data=tmp_path)
    file = client_of(server).files.create(file=("a", b"x"), purpose="batch")
    order = {"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h"} | change
    answer = httpx.post(f"{server.url}/v1/batches", json=order)
    assert (answer.status_code in (400, 404), answer.json()["error"]["param"]) == (True, param)


def test_a_line_that_finds_no_room_waits_for_it(live: Start, tmp_path: Path) -> None:
    script = [Unavailable("full", code="queue_full"), Unavailable("loading"), "ok"]
    client = client_of(live(Scripted(script), data=tmp_path))
    batch = run_batch(client, line("a"))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 0)


def test_a_cancelled_batch_keeps_what_is_done_and_begins_no_more(live: Start, tmp_path: Path) -> None:
    provider = Scripted(cycle(["word " * 20]), delay=0.01)
    client = client_of(live(provider, data=tmp_path))
    file = client.files.create(file=("in", "".join(line(f"{i}") for i in range(500)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="still runs"):
        client.files.delete(file.id)
    eventually(lambda: (client.batches.retrieve(batch.id).request_counts or batch).completed > 0)  # type: ignore[union-attr]
    client.batches.cancel(batch.id)
    eventually(lambda: client.batches.retrieve(batch.id).status == "cancelled")
    ended = client.batches.retrieve(batch.id)
    assert ended.request_counts
    done = rows(client, ended.output_file_id)
    assert len(done) == ended.request_counts.completed == len(provider.requests) < 500
    with pytest.raises(openai.BadRequestError, match="already"):
        client.batches.cancel(batch.id)


def test_a_batch_that_is_cancelled_as_its_last_line_is_done_is_cancelled(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits())
    order = {"endpoint": "/v1/chat/completions", "input_file_id": "file-x", "completion_window": "24h"}
    batch = new_batch(order, "")
    batch.reach("in_progress")
    batch.total = batch.completed = 1
    batch.reach("cancelling")
    asyncio.run(Batches(store, None, lambda: False)._finish(batch))  # type: ignore[arg-type]
    store.close()
    assert batch.status == "cancelled"


def test_a_batch_goes_behind_everybody_in_the_scheduler(live: Start, tmp_path: Path) -> None:
    priorities: list[int] = []
    model = replay(lambda request, k: (priorities.append(request.priority), b"ok")[1])
    client = client_of(live(model, data=tmp_path))
    batch = run_batch(client, line("a"))
    client.chat.completions.create(model="replay", messages=[{"role": "user", "content": "Hi"}])
    assert batch.status == "completed"
    assert set(priorities) == {0, 1}
    assert priorities == sorted(priorities, reverse=True)
    model.close()


# After a kill.

PROGRAM = """
import sys
from pathlib import Path
from myna.chat.byte_chat import ids_of
from myna.provider.replay import replay
from myna.provider.wire.batch import ENDPOINTS, read_order
from myna.serve import create_app, serve
model = replay(lambda request, k: ids_of("an answer of some length"), seconds=0.003)
serve(create_app(model, data=Path(sys.argv[1])), port=0, started=lambda url: print(url, flush=True))
"""


def start(data: Path) -> tuple[subprocess.Popen[str], openai.OpenAI]:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM), str(data)], text=True, stdout=-1)
    assert process.stdout
    url = process.stdout.readline().strip()
    return process, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_killed_again_and_again_a_batch_loses_no_line_and_doubles_none(tmp_path: Path) -> None:
    ids = [f"line-{i}" for i in range(120)]
    process, client = start(tmp_path)
    file = client.files.create(file=("in", "".join(map(line, ids)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for reached in (10, 60):
        eventually(lambda: client.batches.retrieve(batch.id).request_counts.completed >= reached, 60)  # type: ignore[union-attr]  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open(tmp_path / "batches" / f"{batch.id}.out", "ab") as torn:  # as if it was killed in mid-write
            torn.write(b'{"id":"batch_req_x","custom_id":"line-119","resp')
        process, client = start(tmp_path)
    eventually(lambda: client.batches.retrieve(batch.id).status == "completed", 60)
    ended = client.batches.retrieve(batch.id)
    found = [row["custom_id"] for row in rows(client, ended.output_file_id)]
    process.kill()
    process.wait()
    assert sorted(found) == sorted(ids)
    assert ended.request_counts
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (120, 120, 0)


@pytest.mark.parametrize("moment", ["before", "renamed", "described"])
def test_a_batch_killed_while_it_is_published_is_published_once(live: Start, tmp_path: Path, moment: str) -> None:
    store = Store(tmp_path, Limits())
    id, path = store.begin()
    path.write_text(line("a"))
    store.add(id, "in", "batch", "")
    order = {"endpoint": "/v1/chat/completions", "input_file_id": id, "completion_window": "24h"}
    batch = new_batch(order, "")
    batch.total = batch.completed = 1
    batch.reach("finalizing")
    append(store.results(batch)[0], b'{"custom_id":"a"}\n')
    store.save(batch)
    if moment != "before":
        store.results(batch)[0].rename(tmp_path / "files" / batch.output_id)
    if moment == "described":
        store.add(batch.output_id, "x", "batch_output", "")
    store.close()
    provider = Scripted([])
    client = client_of(live(provider, data=tmp_path))
    eventually(lambda: client.batches.retrieve(batch.id).status == "completed")
    assert rows(client, client.batches.retrieve(batch.id).output_file_id) == [{"custom_id": "a"}]
    assert provider.requests == []


def test_a_line_that_failed_before_the_server_was_killed_is_not_asked_again(live: Start, tmp_path: Path) -> None:
    store = Store(tmp_path, Limits())
    id, path = store.begin()
    path.write_text(line("a") + line("b") + line("c"))
    store.add(id, "in", "batch", "")
    order = {"endpoint": "/v1/chat/completions", "input_file_id": id, "completion_window": "24h"}
    batch = new_batch(order, "")
    batch.reach("in_progress")
    good, bad = store.results(batch)
    append(good, b'{"custom_id":"a"}\n')
    append(bad, b'{"custom_id":"b"}\n')
    store.save(batch)
    store.close()
    provider = Scripted(cycle(["ok"]))
    client = client_of(live(provider, data=tmp_path))
    eventually(lambda: client.batches.retrieve(batch.id).status == "completed")
    ended = client.batches.retrieve(batch.id)
    assert [row["custom_id"] for row in rows(client, ended.output_file_id)] == ["a", "c"]
    assert [row["custom_id"] for row in rows(client, ended.error_file_id)] == ["b"]
    assert len(provider.requests) == 1
    assert ended.request_counts
    assert (ended.request_counts.completed, ended.request_counts.failed) == (2, 1)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set the disk takes the beginning of a line, and else nothing."""
    full = threading.Event()
    write, save, keep = os.write, store_module._write, files_module._keep

    def write_a_part(descriptor: int, what: bytes) -> int:
        return write(descriptor, what[:9] if full.is_set() and what.startswith(b'{"id":"batch_req_') else what)

    def no_room(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any) -> Any:
            if full.is_set():
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        return refuse

    monkeypatch.setattr(os, "write", write_a_part)
    monkeypatch.setattr(store_module, "_write", no_room(save))
    monkeypatch.setattr(files_module, "_keep", no_room(keep))
    return full


@pytest.mark.parametrize("moment", ["validating", "in_progress", "cancelling"])
def test_on_a_full_disk_a_batch_pauses_says_so_and_goes_on_when_there_is_room(
    live: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: threading.Event, moment: str
) -> None:
    monkeypatch.setattr(batches_module, "ROOM_AFTER", 0.05)
    asked = threading.Event()

    def answer(what: Any) -> str:
        if moment != "validating":
            full.set()
        asked.set()
        return "ok"

    server = live(Scripted(cycle([answer]), delay=0.05), data=tmp_path)
    client = client_of(server)
    file = client.files.create(file=("in.jsonl", "".join(map(line, "abc")).encode()), purpose="batch")
    check = batches_module._check
    if moment == "validating":
        monkeypatch.setattr(batches_module, "_check", lambda *args: (asked.is_set() or full.set(), check(*args))[1])
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    if moment == "cancelling":
        eventually(full.is_set)
        with pytest.raises(openai.InternalServerError, match="disk is full"):
            client.batches.cancel(batch.id)

    def paused() -> Any:
        errors = client.batches.retrieve(batch.id).errors
        return errors and errors.data and errors.data[0].code == "disk_full"

    eventually(paused)
    assert client.batches.retrieve(batch.id).status == ("cancelling" if moment == "cancelling" else "in_progress")
    asked.set()
    full.clear()
    full.set = lambda: None  # type: ignore[method-assign]
    last = "cancelled" if moment == "cancelling" else "completed"
    eventually(lambda: client.batches.retrieve(batch.id).status == last)
    ended = client.batches.retrieve(batch.id)
    assert not ended.errors
    assert server.app.desk.failure is None
    if last == "completed":
        assert sorted(row["custom_id"] for row in rows(client, ended.output_file_id)) == ["a", "b", "c"]


def test_an_upload_and_an_order_for_which_the_disk_has_no_room_are_a_507(
    live: Start, tmp_path: Path, full: threading.Event
) -> None:
    client = client_of(live([], data=tmp_path))
    file = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    full.set()
    for ask in (
        lambda: client.files.create(file=("in.jsonl", b"{}"), purpose="batch"),
        lambda: client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h"),
    ):
        with pytest.raises(openai.InternalServerError) as told:
            ask()
        assert (told.value.status_code, told.value.code) == (507, "disk_full")
        assert int(told.value.response.headers["retry-after"]) > 0
    full.clear()
    assert [f.id for f in client.files.list()] == [file.id]


def test_a_record_that_does_not_fit_on_the_disk_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Limits())

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space"):
        store.save(new_batch({"endpoint": "x", "input_file_id": "x", "completion_window": "24h"}, ""))
    assert [*(tmp_path / "batches").iterdir()] == []
    store.close()


@pytest.mark.parametrize("text", ['{"x":', "[]", "{}", '{"id": 1}', "\udc80"])
def test_a_record_that_cannot_be_read_is_named_in_one_line_and_the_rest_goes_on(
    live: Start, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    live([], data=tmp_path).__exit__()
    broken = [tmp_path / "batches" / f"batch_{'0' * 32}.json", tmp_path / "files" / f"file-{'1' * 32}.json"]
    for path in broken:
        path.write_bytes(text.encode(errors="surrogateescape"))
    result = tmp_path / "files" / f"file-{'2' * 32}"
    result.write_bytes(b"perhaps the batch's")
    client = client_of(live(Scripted(cycle(["ok"])), data=tmp_path))
    batch = run_batch(client, line("a"))
    assert batch.status == "completed"
    assert [b.id for b in client.batches.list()] == [batch.id]
    assert {f.id for f in client.files.list()} == {batch.input_file_id, batch.output_file_id}
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(str(path) in record.getMessage() for record in told for path in broken) == [False, False, True, True]
    assert not any(record.exc_info for record in told)
    assert result.exists()


def test_a_line_of_which_the_disk_took_a_part_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, what: write(descriptor, what[:5]))
    with pytest.raises(OSError, match="No space left"):
        append(tmp_path / "out", b'{"custom_id":"a"}\n')
    assert (tmp_path / "out").read_bytes() == b""


def test_an_upload_that_was_cut_off_is_removed_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits())
    store.begin()[1].write_text("half")
    store.close()
    Store(tmp_path, Limits()).close()
    assert list((tmp_path / "files").iterdir()) == []


def test_create_app_takes_the_folder() -> None:
    with pytest.raises(MynaError, match="--data"):
        create_app(Scripted(), data=Path("/proc/nothing"))


def test_a_list_comes_in_pages_and_says_whether_there_are_more(live: Start, tmp_path: Path) -> None:
    server = live(Scripted(), data=tmp_path)
    ids = [client_of(server).files.create(file=("x", b"x"), purpose="batch").id for _ in range(3)]

    def page(**asked: Any) -> Any:
        return httpx.get(f"{server.url}/v1/files", params=asked, timeout=20).json()

    newest = [row["id"] for row in page()["data"]]
    assert sorted(newest) == sorted(ids)
    first = page(limit=2)
    assert ([row["id"] for row in first["data"]], first["has_more"]) == (newest[:2], True)
    rest = page(limit=2, after=first["last_id"])
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == (newest[2:], False)
    assert not page(limit=3)["has_more"]
    for wrong, param in (
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after": "x"}, "after"),
    ):
        assert page(**wrong)["error"]["param"] == param


@pytest.mark.parametrize(
    ("metadata", "fine"),
    [
        ({str(i): "x" for i in range(16)}, True),
        ({str(i): "x" for i in range(17)}, False),
        ({"k" * 64: "v" * 512}, True),
        ({"k" * 65: "v"}, False),
        ({"k": "v" * 513}, False),
        ([], False),
    ],
)
def test_a_batchs_metadata_has_openais_limits(metadata: Any, fine: bool) -> None:
    order = {"endpoint": ENDPOINTS[0], "input_file_id": "file-1", "completion_window": "24h", "metadata": metadata}
    with contextlib.nullcontext() if fine else pytest.raises(RequestError):
        assert read_order(json.dumps(order).encode())["metadata"] == metadata
