"""Who may call the server: this machine's own pages and programs, and whom the user names."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from live_server import Live
from starlette.datastructures import Headers

from myna.provider import Scripted
from myna.records import RequestError
from myna.serve.guard import Guard

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def post(live: Live, **options: Any) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/chat/completions", json=CHAT, **options)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "localhost."])
def test_this_machines_names_are_answered(live: Start, host: str) -> None:
    assert httpx.get(f"{live([]).url}/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.5", "", "[::1", "a@b"]
)
def test_a_name_that_is_not_ours_is_not_answered(live: Start, host: str) -> None:
    response = httpx.get(f"{live([]).url}/v1/models", headers={"host": host})
    assert response.status_code in (400, 403)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://127.0.0.1"]
)
def test_a_page_of_another_site_cannot_make_the_model_work(live: Start, origin: str) -> None:
    provider = Scripted(["ok"])
    response = post(live(provider), headers={"origin": origin})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert provider.requests == []


def test_an_allowed_origin_may_call_and_read(live: Start) -> None:
    origin = "https://app.example"
    server = live(["ok"], guard=Guard.of("127.0.0.1", allow_origin=origin))
    preflight = httpx.options(
        f"{server.url}/v1/chat/completions",
        headers={"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-a"},
    )
    answer = post(server, headers={"origin": origin})
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (204, "x-a")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    other = post(server, headers={"origin": "https://other.example"})
    assert other.status_code == 403
    assert not [name for name in other.headers if name.startswith("access-control")]


def test_on_every_interface_addresses_are_ours_and_names_are_not() -> None:
    guard = Guard.of("0.0.0.0", ["my-box"])
    for host in ("192.168.1.5:8000", "[fe80::1]", "my-box", "localhost"):
        guard.check(Headers({"host": host}))
    with pytest.raises(RequestError, match="--allow-host"):
        guard.check(Headers({"host": "evil.example"}))


def test_the_page_comes_with_a_policy_that_allows_only_itself(live: Start) -> None:
    server = live([])
    for path in ("/", "/page/page.js", "/page/style.css"):
        response = httpx.get(server.url + path)
        assert response.status_code == 200
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(server.url, headers={"if-none-match": httpx.get(server.url).headers["etag"]})
    assert again.status_code == 304
