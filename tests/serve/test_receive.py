"""A request's body as it comes in: as much as the limit allows and not a byte more, for as long as its client is there."""

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers

from myna.records import RequestError
from myna.serve.receive import ClientGone, receive_body, unless_gone

LIMIT = 10


class Client:
    """Sends these pieces, and hangs up when there are no more."""

    def __init__(self, *pieces: bytes, whole: bool = True):
        self.left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if whole:
            self.left[-1]["more_body"] = False

    async def receive(self) -> Any:
        return self.left.pop(0) if self.left else {"type": "http.disconnect"}


def body(client: Client, **headers: str) -> bytes:
    sent = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return asyncio.run(receive_body(sent, client.receive, LIMIT))


@pytest.mark.parametrize("pieces", [[b"x" * LIMIT], [b"x" * (LIMIT - 1), b"x"], [b"x"] * LIMIT, [b""]])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_just_the_limit_is_taken(pieces: list[bytes], announced: bool) -> None:
    whole = b"".join(pieces)
    assert body(Client(*pieces), **({"content_length": str(len(whole))} if announced else {})) == whole


@pytest.mark.parametrize("pieces", [[b"x" * (LIMIT + 1)], [b"x" * LIMIT, b"x", b"never read"]])
def test_one_byte_more_is_refused_and_nothing_after_it_is_read(pieces: list[bytes]) -> None:
    client = Client(*pieces)
    with pytest.raises(RequestError) as refused:
        body(client)
    assert refused.value.code == "request_too_large"
    assert len(client.left) == max(0, len(pieces) - 2)


def test_one_byte_more_that_was_announced_is_not_read_at_all() -> None:
    client = Client(b"x" * (LIMIT + 1))
    with pytest.raises(RequestError):
        body(client, content_length=str(LIMIT + 1))
    assert client.left


@pytest.mark.parametrize("length", ["-1", "x", "²", ""])
def test_a_length_that_is_no_number_limits_nothing_and_the_bytes_do(length: str) -> None:
    assert body(Client(b"ok"), content_length=length) == b"ok"
    with pytest.raises(RequestError):
        body(Client(b"x" * (LIMIT + 1)), content_length=length)


def test_a_client_that_hangs_up_in_mid_body_is_gone() -> None:
    with pytest.raises(ClientGone):
        body(Client(b"half", whole=False))


def test_what_is_worked_on_for_a_client_that_hung_up_has_ended_before_it_is_said() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what it frees may take a moment
            ended.append(True)

    with pytest.raises(ClientGone):
        asyncio.run(asyncio.wait_for(unless_gone(work(), Client(b"", b"").receive), 20))
    assert ended == [True]
