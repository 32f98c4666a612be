"""Who may call: keys, told apart in constant time and kept as hashes, and what each may ask for in a minute."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import aclosing
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Live
from starlette.datastructures import Headers

from myna.provider import Scripted
from myna.records import Conversation, DataError, MynaError, RequestError, Unavailable
from myna.serve import Keys, create_app, key_of, open_desk, serve
from myna.serve.account import ACCOUNT, Account
from myna.serve.key_file import add_key, read_keys, revoke_key
from myna.serve.keys import Caller, hash_key, new_key

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
KEY, OTHER = (
    "myna-" + 43 * "a",
    "myna-" + 43 * "b",
)  # of the form of new_key(), and the same in every process of a test run


def post(live: Live, key: str | None = KEY, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{live.url}/v1/chat/completions", json=CHAT | more, headers=headers, timeout=20)


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_with_keys_nothing_but_the_page_and_the_probes_is_open(live: Start) -> None:
    server = live(["ok"], keys=Keys([key_of(KEY)]))
    assert code_of(post(server, None)) == code_of(post(server, OTHER)) == (401, "invalid_api_key")
    for path in ("/v1/models", "/metrics", "/nothing"):
        assert code_of(httpx.get(server.url + path)) == (401, "invalid_api_key")
    for path in ("/", "/docs", "/openapi.json", "/page/page.js", "/health", "/ready"):
        assert httpx.get(server.url + path).status_code == 200
    assert post(server).status_code == 200


@pytest.mark.parametrize("header", [{"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}])
def test_a_key_may_come_as_bearer_or_as_x_api_key(header: dict[str, str]) -> None:
    caller = Keys([key_of(OTHER, "a"), key_of(KEY, "b")]).identify(Headers(header))
    assert caller is not None
    assert caller.name == "b"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer  ", f"Basic {KEY}", KEY, f"Bearer {KEY[:-1]}", "Bearer \xff"])
def test_anything_else_is_no_key(value: str) -> None:
    with pytest.raises(RequestError):
        Keys([key_of(KEY)]).identify(Headers({"authorization": value}))


def test_every_digest_is_compared_and_by_compare_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that stops at the first match, or ==, would tell by its time how far a guess got."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append(a), real(a, b))[1])
    keys = [new_key() for _ in range(5)]
    Keys(key_of(key, str(i)) for i, key in enumerate(keys)).identify(Headers({"x-api-key": keys[0]}))
    assert compared == [hash_key(key) for key in keys]


def test_the_key_itself_is_kept_nowhere() -> None:
    caller = key_of(KEY)
    assert KEY not in str(vars(caller))
    assert caller.digest == hashlib.sha256(KEY.encode()).digest()


def test_a_key_file_names_hashes_and_limits(tmp_path: Path) -> None:
    rows = [
        {"name": "a", "sha256": hash_key(KEY).hex(), "requests_per_minute": 2},
        {"name": "b", "sha256": hash_key(OTHER).hex()},
    ]
    file = tmp_path / "keys.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b = read_keys(file)
    assert (a.name, b.name, a.digest) == ("a", "b", hash_key(KEY))
    now = 1e9
    a.admit(now)
    a.admit(now)
    with pytest.raises(Unavailable):
        a.admit(now)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "a"}, "expected name, sha256"),
        ({"name": "a", "sha256": "00"}, "sha256: expected 64 hexadecimal digits"),
        ({"name": "", "sha256": "0" * 64}, "name: expected a name"),
        ({"name": "a", "sha256": "0" * 64, "key": "secret"}, "expected name, sha256"),
        ({"name": "a", "sha256": "0" * 64, "tokens_per_minute": 0}, "tokens_per_minute: expected a number above 0"),
        ({"name": "a", "sha256": "0" * 64, "requests_per_minute": True}, "requests_per_minute: expected"),
        ([], "expected name"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(row: object, words: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text("\n" + json.dumps(row))
    with pytest.raises(DataError, match=rf"keys\.jsonl:2: {words}"):
        read_keys(file)


def test_a_key_that_could_be_guessed_and_a_name_used_twice_are_refused() -> None:
    with pytest.raises(MynaError, match="at least 16"):
        key_of("secret")
    with pytest.raises(MynaError, match="Two API keys"):
        Keys([key_of(KEY, "a"), key_of(OTHER, "a")])


def test_others_reach_the_server_only_with_a_key() -> None:
    with pytest.raises(MynaError, match="MYNA_API_KEY"):
        serve(create_app(Scripted()), "0.0.0.0", 0)


# Limits.


def test_requests_of_a_minute_refill_evenly_and_a_refused_one_costs_nothing() -> None:
    caller = Caller("a", b"", requests_per_minute=6)
    now = 1e9
    for _ in range(6):
        caller.admit(now)
    for _ in range(9):
        with pytest.raises(Unavailable) as refused:
            caller.admit(now)
        assert (refused.value.retry_after, refused.value.code) == (10, "rate_limit_exceeded")
    caller.admit(now + 10)
    with pytest.raises(Unavailable):
        caller.admit(now + 10)


def test_tokens_are_charged_afterwards_and_the_debt_is_waited_for() -> None:
    caller = Caller("a", b"", tokens_per_minute=60)
    now = 1e9
    caller.admit(now)
    caller.charge(100)
    with pytest.raises(Unavailable) as refused:
        caller.admit(now)
    assert refused.value.retry_after in (40, 41)
    caller.admit(now + 41)


def test_over_http_a_limit_is_a_429_for_this_key_alone(live: Start) -> None:
    callers = [Caller("a", hash_key(KEY), tokens_per_minute=2), Caller("b", hash_key(OTHER), requests_per_minute=2)]
    server = live(Scripted(cycle(["four words, four tokens"])), keys=Keys(callers))
    assert post(server).status_code == 200
    refused = post(server)
    assert code_of(refused) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 30
    assert [post(server, OTHER).status_code for _ in range(3)] == [200, 200, 429]
    look = {"Authorization": f"Bearer {OTHER}"}
    assert [httpx.get(f"{server.url}/v1/models", headers=look).status_code for _ in range(3)] == [200] * 3, (
        "looking is free"
    )


def test_an_answer_nobody_waits_for_is_charged_all_the_same(live: Start) -> None:
    caller = Caller("a", hash_key(KEY), tokens_per_minute=50)
    server = live(Scripted(["word " * 9_999], delay=0.001), keys=Keys([caller]))
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}, headers={"x-api-key": KEY}
    ) as response:
        for _, _ in zip(range(200), response.iter_lines(), strict=False):
            pass
    assert code_of(post(server)) == (429, "rate_limit_exceeded")


def test_a_prompt_is_charged_by_its_length_where_its_answer_was_left_before_it_was_counted() -> None:
    account = Account("r", Caller("a", hash_key(KEY), tokens_per_minute=50))

    async def leave() -> None:
        ACCOUNT.set(account)
        served = open_desk().models.add(Scripted(["word " * 99])).served
        assert served
        async with aclosing(served.stream(Conversation.ask("x" * 400))) as deltas:
            while not (await anext(deltas)).text:
                pass

    asyncio.run(leave())
    assert (account.outcome, account.prompt_tokens, account.completion_tokens) == ("cancelled", 100, 1)


# The key file as `myna keys` writes it.


def test_a_key_that_was_added_opens_until_it_is_revoked_and_the_file_never_has_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    key, other = add_key(file, "ci", requests_per_minute=2), add_key(file, "你")
    assert key.encode() not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    keys = Keys(read_keys(file))
    for given, name in ((key, "ci"), (other, "你")):
        caller = keys.identify(Headers({"x-api-key": given}))
        assert caller is not None
        assert caller.name == name
    before = file.read_bytes().splitlines()
    revoke_key(file, "ci")
    assert file.read_bytes().splitlines() == before[1:]
    with pytest.raises(RequestError):
        Keys(read_keys(file)).identify(Headers({"x-api-key": key}))


def test_a_key_file_that_others_could_read_is_theirs_no_more_once_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text("\n")
    file.chmod(0o644)
    add_key(file, "ci")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: add_key(file, "ci"), "has a key named 'ci' already"),
        (lambda file: add_key(file, ""), "expected a name"),
        (lambda file: add_key(file, "b", tokens_per_minute=0), "expected a number above 0"),
        (lambda file: revoke_key(file, "b"), "no key named 'b'. It has: ci"),
        (lambda file: add_key(file.with_name("none") / "keys", "b"), "cannot be written"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(change: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    add_key(file, "ci")
    before = file.read_bytes()
    with pytest.raises(MynaError, match=words):
        change(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["keys.jsonl"]


def test_of_two_who_write_at_once_the_second_is_told(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    (tmp_path / "keys.jsonl.partial").touch()
    with pytest.raises(MynaError, match="somebody else is writing"):
        add_key(file, "ci")
    assert (tmp_path / "keys.jsonl.partial").exists()
