"""MCP both ways, with the SDK on the other side: what a user agreed to runs, what changed is blocked, and a server that lies, hangs or
floods costs a bounded time and one named outcome."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from myna.apps.tools import Asked, Dispatcher, Outcome, tool
from myna.records import DataError, MynaError, ToolCall

pytest.importorskip("mcp", reason='pip install "myna[mcp]"')

from myna.apps.tools import mcp_client
from myna.apps.tools.mcp_client import Http, Server, Stdio, agree, connect
from myna.apps.tools.mcp_pins import Pins
from myna.apps.tools.mcp_server import mcp_server

CASES = Path(__file__).with_name("mcp_cases.py")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not leave by itself is killed at once."""
    monkeypatch.setattr("myna.apps.tools.mcp_stdio.GRACE", 0.3)


def server(kind: str, how: str = "") -> Stdio:
    return Stdio((sys.executable, str(CASES), kind, how))


def talk(
    where: Stdio | Http, pins: Pins, *calls: ToolCall, agreed: tuple[str, ...] = (), **more: Any
) -> tuple[Server, list[Outcome]]:
    """Connect, agree, connect again and call."""

    async def main() -> tuple[Server, list[Outcome]]:
        for name in agreed:
            async with connect("far", where, pins) as found:
                agree(pins, found, name)
        async with connect("far", where, pins, **more) as found:
            return found, await Dispatcher(found.tools).dispatch(calls, tainted=False)

    return asyncio.run(main())


def call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall("c", f"far__{name}", json.dumps(arguments))


def states(found: Server) -> dict[str, str]:
    return {offer.name: offer.state for offer in found.offers}


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_nothing_of_a_server_runs_before_its_user_agreed(tmp_path: Path) -> None:
    found, (outcome,) = talk(server("honest"), Pins(tmp_path / "pins.json"), call("add", a=1, b=2))
    assert states(found) == {"add": "new", "greet": "new", "fails": "new"}
    assert (found.tools, outcome.status) == ((), "unknown")


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_what_was_agreed_runs_and_what_changed_is_blocked(tmp_path: Path) -> None:
    """Invariant 11, with one server file whose words change between two connections: same command, other definition."""
    pins, script = Pins(tmp_path / "pins.json"), tmp_path / "server.py"

    def write(how: str) -> Stdio:
        script.write_text(
            f"import sys; sys.path.insert(0, {str(CASES.parent)!r}); import mcp_cases; mcp_cases.honest({how!r})"
        )
        return Stdio((sys.executable, str(script)))

    calls = (call("add", a=1, b=2), call("greet", name="安"), call("greet", name=1))
    found, outcomes = talk(write(""), pins, *calls, agreed=("add", "greet"))
    assert [(o.status, o.result) for o in outcomes[:2]] == [("ok", "3"), ("ok", "你好, 安")]
    assert outcomes[2].status == "invalid"
    assert all(o.untrusted for o in outcomes[:2])
    assert [tool.effect for tool in found.tools] == ["write", "write"], "a server's word makes nothing a read"

    found, outcomes = talk(write("changed"), pins, *calls[:2])
    assert states(found) == {"add": "agreed", "greet": "changed", "fails": "new"}
    assert [o.status for o in outcomes] == ["ok", "unknown"]


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_a_tool_at_another_address_is_another_tool(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    talk(server("honest"), pins, agreed=("add",))
    found, _ = talk(server("honest", "elsewhere"), pins)
    assert states(found)["add"] == "changed"


def test_a_command_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(MynaError, match=r"/no/such/server: No such file or directory") as e:
        talk(Stdio(("/no/such/server",)), Pins(tmp_path / "pins.json"))
    assert "Errno" not in str(e.value)


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_an_error_of_a_tool_is_told_to_the_model(tmp_path: Path) -> None:
    _, (outcome,) = talk(server("honest"), Pins(tmp_path / "pins.json"), call("fails"), agreed=("fails",))
    assert outcome.status == "error"
    assert "fire" in outcome.result or "fails" in outcome.result


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(CASES), "honest", str(port)])
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_a_server_over_http_is_one_like_any_other(tmp_path: Path, address: str) -> None:
    _, (outcome,) = talk(Http(address), Pins(tmp_path / "pins.json"), call("add", a=40, b=2), agreed=("add",))
    assert (outcome.status, outcome.result) == ("ok", "42")


@pytest.mark.parametrize(
    ("where", "says", "egress"),
    [
        (Http("https://far.example/mcp"), None, True),
        (Http("https://far.example/mcp"), False, True),
        (Stdio(("server",)), None, None),
        (Stdio(("server",)), True, True),
        (Stdio(("server",)), False, None),
    ],
)
def test_a_server_over_http_goes_out_and_no_servers_word_denies_it(
    where: Stdio | Http, says: bool | None, egress: bool | None, tmp_path: Path
) -> None:
    from mcp.types import Tool as Offered
    from mcp.types import ToolAnnotations

    one = Offered(name="look", input_schema={"type": "object"}, annotations=ToolAnnotations(open_world_hint=says))
    offer = mcp_client._offer("far", where, one, Pins(tmp_path / "pins.json"), ["look"])
    assert offer.egress is egress


@pytest.mark.parametrize(("length", "fine"), [(10, True), (11, False)])
def test_a_response_over_http_that_is_too_long_is_not_read(length: int, fine: bool) -> None:
    import httpx2

    from myna.apps.tools.mcp_http import limited

    async def answer() -> AsyncIterator[bytes]:
        for _ in range(length):
            yield b"x"

    async def main() -> bytes:
        inner = httpx2.MockTransport(lambda request: httpx2.Response(200, content=answer()))
        async with limited({}, 10, inner) as client:
            return (await client.get("http://far.example.com/mcp")).content

    if fine:
        assert asyncio.run(main()) == b"x" * 10
    else:
        with pytest.raises(httpx2.StreamError, match="too long"):
            asyncio.run(main())


def test_what_a_liar_changed_is_blocked_and_what_is_new_too(tmp_path: Path) -> None:
    """Invariant 11: the same command, whose words change behind its user's back."""
    pins, word = Pins(tmp_path / "pins.json"), tmp_path / "how"
    where = Stdio((sys.executable, str(CASES), "liar", str(word)))
    word.write_text("")
    found, (new,) = talk(where, pins, call("t"))
    assert (states(found), new.status) == ({"t": "new"}, "unknown")
    found, (fine,) = talk(where, pins, call("t"), agreed=("t",))
    assert (states(found), fine.status, fine.untrusted) == ({"t": "agreed"}, "ok", True)
    assert [tool.effect for tool in found.tools] == ["write"]
    for how in ("other description", "other schema", "other hint"):
        word.write_text(how)
        found, (blocked,) = talk(where, pins, call("t"))
        assert (states(found), found.tools, blocked.status) == ({"t": "changed"}, (), "unknown"), how


def test_what_the_caller_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with connect("far", server("liar"), Pins(tmp_path / "pins.json")):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())


@pytest.mark.parametrize("how", ["endless pages", "many tools", "no schema", "no server", "says nothing"])
def test_a_server_that_gives_no_list_is_an_error_that_names_it(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_client, "START", 1.0 if how == "says nothing" else 20.0)
    with pytest.raises(MynaError, match="the MCP server 'far'") as e:
        talk(server("liar", how), Pins(tmp_path / "pins.json"))
    assert how != "no server" or "this is no MCP server" in str(e.value)


@pytest.mark.parametrize("how", ["long description", "two of one name", "odd name"])
def test_a_definition_that_is_no_good_cannot_be_agreed_to(tmp_path: Path, how: str) -> None:
    pins = Pins(tmp_path / "pins.json")
    found, _ = talk(server("liar", how), pins)
    assert {offer.state for offer in found.offers} == {"refused"}
    with pytest.raises(MynaError, match="can be agreed to"):
        agree(pins, found, found.offers[0].name)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("", "ok", "fine"),
        ("hangs", "error", "far"),
        ("megabytes", "ok", "[cut: 599000 of 600000 characters are not shown]"),
        pytest.param("more than the most", "error", "more than 4194304 bytes", marks=pytest.mark.slow),
        ("dies", "error", "out of memory, I think"),
        ("nonsense", "error", "far"),
        ("image", "ok", "[image, which is not shown]"),
        pytest.param("doubling schema", "invalid", "schema cannot be used", marks=pytest.mark.slow),
        ("doubling output schema", "ok", '{"a":1}'),
    ],
)
def test_whatever_a_server_does_with_a_call_the_outcome_is_bounded(
    tmp_path: Path, how: str, status: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from myna.apps.tools import schema_check

    monkeypatch.setattr(schema_check, "SECONDS", 5.0 if how != "doubling schema" else 1.0)
    slow = 1.0 if how == "hangs" else 20.0
    pins = Pins(tmp_path / "pins.json")
    _, (outcome,) = talk(server("liar", how), pins, call("t"), agreed=("t",), timeout=slow, cap=1000)
    if how == "hangs":
        assert outcome.status in ("error", "timeout")
    else:
        assert (outcome.status, said in outcome.result) == (status, True), outcome.result
    assert len(outcome.result) < 1100
    assert not [line for line in cmdlines() if str(CASES) in line], "the server is gone"


def cmdlines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found


def test_a_damaged_file_of_pins_is_no_empty_one(tmp_path: Path) -> None:
    for text in ("", "{", '{"servers": {"a": {"b": {"definition": 3, "effect": "read"}}}}', '{"servers": []}'):
        (tmp_path / "pins.json").write_text(text)
        with pytest.raises(DataError, match=r"pins\.json"):
            Pins(tmp_path / "pins.json").of("a", "b")


def test_a_servers_name_cannot_be_read_in_two_ways(tmp_path: Path) -> None:
    async def main() -> None:
        async with connect("a_b", server("honest"), Pins(tmp_path / "pins.json")):
            pass

    with pytest.raises(MynaError, match="'a_b'"):
        asyncio.run(main())


@tool(effect="read")
def population(city: str, year: int = 2024) -> dict[str, Any]:
    """People living in the city proper.

    Args:
        city: A town, 例如 杭州.
    """
    return {"city": city, "year": year}


@tool(effect="danger")
def wipe() -> str:
    """Delete everything."""
    return "wiped"


@tool(effect="write", egress=False)
def note(text: str) -> str:
    """Write a note."""
    return "noted"


async def grants_notes(asked: Asked) -> bool:
    return asked.tool == "note"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_ours_are_served_to_the_sdks_own_client(mode: str) -> None:
    from mcp import Client

    async def main() -> None:
        desk = Dispatcher((population, wipe, note), ask=grants_notes)
        async with Client(mcp_server(desk), mode=mode) as client:
            offered = {one.name: one for one in (await client.list_tools()).tools}
            assert offered["population"].input_schema == population.parameters
            hints = {name: one.annotations for name, one in offered.items()}
            assert [(h.read_only_hint, h.destructive_hint) for h in hints.values() if h] == [
                (True, False),
                (False, True),
                (False, False),
            ]
            assert [h.open_world_hint for h in hints.values() if h] == [None, None, False]
            for _ in range(2):  # a call granted once is asked about again
                assert (await client.call_tool("note", {"text": "梨"})).content[0].text == "noted"  # type: ignore[union-attr]
            result = await client.call_tool("population", {"city": "杭州"})
            assert json.loads(result.content[0].text) == {"city": "杭州", "year": 2024}  # type: ignore[union-attr]
            for name, arguments in (("population", {"town": "x"}), ("nothing", {}), ("wipe", {})):
                refused = await client.call_tool(name, arguments)
                assert refused.is_error, name
                assert "wiped" not in str(refused.content)

    asyncio.run(main())


@pytest.mark.slow  # the SDK takes seconds to start in the server's process
def test_what_is_served_comes_back_through_our_own_client(tmp_path: Path) -> None:
    """Server and client of ours, over stdio, with the definitions that one says and the other pins."""
    script = tmp_path / "serve.py"
    script.write_text(
        "import asyncio\n"
        "from myna.apps.tools import Dispatcher, tool\n"
        "from myna.apps.tools.mcp_server import mcp_server, serve_stdio\n"
        "@tool(effect='read')\n"
        "def twice(n: int) -> int:\n"
        '    """Twice a number."""\n'
        "    print('a stray line that is no JSON-RPC')\n"
        "    return 2 * n\n"
        "asyncio.run(serve_stdio(mcp_server(Dispatcher((twice,)))))\n"
    )
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    where = Stdio((sys.executable, str(script)), env)
    found, (outcome,) = talk(where, Pins(tmp_path / "pins.json"), call("twice", n=21), agreed=("twice",))
    assert (outcome.status, outcome.result) == ("ok", "42")
    assert found.offers[0].hint == "read"
