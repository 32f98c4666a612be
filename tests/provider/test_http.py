"""Http against endpoints that keep the rules and endpoints that do not. A cut answer never passes for a short one."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from myna.apps.hallucination import sample
from myna.provider import complete
from myna.provider.connect import connect
from myna.provider.http import Http, without_user
from myna.provider.powers import Powers
from myna.records import Conversation, MynaError, ProviderError, Reply, RequestError, Sampling, Unavailable

HI = Conversation.ask("Hi")
STREAM = {"content-type": "text/event-stream"}
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@contextmanager
def endpoint(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that gives every request this one answer."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def ask(url: str, sampling: Sampling = Sampling()) -> Reply:
    async def one() -> Reply:
        async with Http(url, "m") as provider:
            return await complete(provider, HI, sampling)

    return asyncio.run(one())


def refusal(status: int, headers: dict[str, str], body: bytes, sampling: Sampling = Sampling()) -> MynaError:
    with endpoint(status, headers, body) as url, pytest.raises(MynaError) as caught:
        ask(url, sampling)
    return caught.value


@pytest.mark.parametrize("tail", [DONE, b""], ids=["done", "no done"])
def test_a_finished_answer_is_an_answer_with_or_without_done(tail: bytes) -> None:
    with endpoint(200, STREAM, HELLO + STOP + tail) as url:
        assert ask(url).text == "Hello"


@pytest.mark.parametrize("tail", [DONE, b"", STOP[:40]], ids=["done", "nothing", "half an event"])
def test_an_answer_without_its_finish_reason_is_an_error(tail: bytes) -> None:
    assert "before the answer was finished" in str(refusal(200, STREAM, HELLO + tail))


def test_a_missing_candidate_is_an_error() -> None:
    assert isinstance(refusal(200, STREAM, HELLO + STOP, Sampling(n=2)), ProviderError), "cut before the other began"
    began = HELLO.replace(b'"index":0', b'"index":1')
    assert isinstance(refusal(200, STREAM, HELLO + began + STOP + DONE, Sampling(n=2)), ProviderError)


def test_an_endpoint_that_does_not_know_n_is_as_one_that_refuses_it() -> None:
    other = (HELLO + STOP).replace(b'"index":0', b'"index":9')
    assert isinstance(refusal(200, STREAM, other + DONE), ProviderError), "an answer to something else"
    error = refusal(200, STREAM, HELLO + STOP + DONE, Sampling(n=2))
    assert "gave 1 of 2 answers" in str(error)
    assert isinstance(error, RequestError)
    assert error.param == "n"
    with endpoint(200, STREAM, HELLO + STOP + DONE) as url:
        found = asyncio.run(sample(Http(url, "m"), HI, 3))
        assert (found.agreement, found.calls) == (1.0, 4)
        found = asyncio.run(sample(Http(url, "m", powers=Powers(tried=1.0)), HI, 3))
        assert (found.agreement, found.calls) == (1.0, 3), "it is not asked for what it is known not to do"


def test_a_connection_cut_in_mid_answer_is_an_error() -> None:
    headers = STREAM | {"content-length": "99999"}
    assert isinstance(refusal(200, headers, HELLO + STOP), ProviderError)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {oops}\n\n",
        b'data: {"choices": 5}\n\n',
        b'data: {"error": {"message": "out of memory"}}\n\n',
        b"data: 5\n\n",
    ],
)
def test_a_broken_event_is_an_error_though_the_rest_is_whole(event: bytes) -> None:
    assert isinstance(refusal(200, STREAM, HELLO + event + STOP + DONE), ProviderError)


def test_an_error_in_mid_answer_says_what_the_endpoint_said() -> None:
    assert "out of memory" in str(refusal(200, STREAM, HELLO + b'data: {"error": {"message": "out of memory"}}\n\n'))


def test_an_answer_that_is_no_stream_is_an_error() -> None:
    said = str(refusal(200, {"content-type": "application/json"}, b'{"error": {"message": "no credit left"}}'))
    assert "application/json" in said
    assert "no credit left" in said


def test_a_redirect_is_not_followed_and_says_where_to() -> None:
    with endpoint(200, STREAM, HELLO + STOP + DONE) as there:
        said = str(refusal(307, {"location": there}, b""))
    assert there in said
    assert "name that address" in said


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (404, RequestError),
        (422, RequestError),
        (429, Unavailable),
        (503, Unavailable),
        (401, ProviderError),
        (500, ProviderError),
        (302, ProviderError),
    ],
)
def test_a_status_becomes_the_right_error_with_the_endpoints_words(status: int, kind: type[MynaError]) -> None:
    error = refusal(status, {"retry-after": "7"}, b'{"error": {"message": "because", "param": "n", "code": "c"}}')
    assert type(error) is kind
    assert "because" in str(error)
    assert getattr(error, "retry_after", 7) == 7
    assert getattr(error, "status", status) == status


@pytest.mark.parametrize(
    ("status", "headers", "body", "next"),
    [
        (429, {"retry-after": "7"}, b"{}", "try again in 7 seconds"),
        (429, {"retry-after": "9" * 5000}, b"{}", "try again in 999999999 seconds"),
        (503, {}, b"{}", "try again later"),
        (401, {}, b'{"error": {"message": "no"}}', "$MYNA_API_KEY"),
        (404, {}, b"<html>not here</html>", "end in /v1"),
        (200, {"content-type": "text/html"}, b"<html>a page</html>", "end in /v1"),
        (500, {}, b"<html>" + b"x" * 100_000, "xxx"),
        (500, {}, b'{"error": {"message": "one\\ntwo\\r\\n  three"}}', "one two three"),
        (200, STREAM, b'data: {"error": {"message": "one\\ntwo"}}\n\n', "one two"),
        (200, STREAM, b"data: {oops}\n\n", "not JSON"),
        (200, STREAM, b"data: 5\n\n", "malformed"),
    ],
)
def test_an_error_is_one_line_that_says_where_and_what_to_do(
    status: int, headers: dict[str, str], body: bytes, next: str
) -> None:
    said = str(refusal(status, headers, body))
    assert next in said
    assert said.startswith("http://127.0.0.1:")
    assert len(said.splitlines()) == 1
    assert len(said) < 800


def test_a_password_in_an_address_is_sent_and_never_said() -> None:
    with endpoint(500, {}, b"{}") as url:
        secret = url.replace("//", "//ann:pass%20word@")
        provider = Http(secret, "m")
        assert (provider.base_url, provider._user) == (url, ("ann", "pass word"))
        with pytest.raises(MynaError) as caught:
            ask(secret)
    assert "ann" not in str(caught.value)
    assert without_user("http://h/v1?mail=a@b") == ("http://h/v1?mail=a@b", None)


def test_keepalives_alone_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.provider.http.STUCK", 0.0)
    assert "did not end" in str(refusal(200, STREAM, b": keepalive\n\n" * 10))


def test_empty_events_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.provider.http.LONGEST", 100)
    assert "did not end" in str(refusal(200, STREAM, b'data: {"choices":[{"index":0,"delta":{}}]}\n\n' * 20))


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ProviderError, match=f"127.0.0.1:{port}.*Is the server running"):
        ask(f"http://127.0.0.1:{port}/v1")


@pytest.mark.parametrize("url", ["not a url", "ftp://x", "http://[::1"])
def test_a_base_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(ProviderError):
        ask(url)


def test_a_server_on_this_machine_is_not_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with endpoint(200, STREAM, HELLO + STOP + DONE) as url:
        assert ask(url).text == "Hello"


def test_one_provider_serves_several_event_loops() -> None:
    with endpoint(200, STREAM, HELLO + STOP + DONE) as url:
        provider = Http(url, "m")
        assert [asyncio.run(complete(provider, HI)).text for _ in range(2)] == ["Hello", "Hello"]


def test_an_answer_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.provider.http.LONGEST", 20)
    monkeypatch.setattr("myna.provider.http.EVENT", 0)
    assert "did not end" in str(refusal(200, STREAM, HELLO * 10 + STOP + DONE))
    with endpoint(200, STREAM, HELLO * 4 + STOP + DONE) as url:
        assert ask(url).text == "Hello" * 4


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"data": [{"id": "only"}]}', ""),
        (200, b'{"data": [{"id": "one"}, {"id": "two"}]}', "serves one, two; choose"),
        (200, b'{"data": 7}', "no list of models"),
        (200, b"<html>", "no list of models"),
        (302, b"", "answered 302"),
        (401, b'{"error": {"message": "no"}}', "MYNA_API_KEY"),
    ],
)
def test_the_only_model_of_an_endpoint_is_asked_for_with_the_key(
    status: int, body: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    class Lists(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["authorization"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MYNA_API_KEY", "k-123")
    with ThreadingHTTPServer(("127.0.0.1", 0), Lists) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        if says:
            with pytest.raises(MynaError, match=says) as caught:
                connect(url)
            assert "\n" not in str(caught.value)
        else:
            assert connect(url).name == "only"
        server.shutdown()
    assert seen == ["Bearer k-123"]
