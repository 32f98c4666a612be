"""Once a stranger's text is in the context, nothing that was read leaves without a yes: a tool that says it sends its arguments over a
network asks, and of a read that does not say, an address in its arguments asks."""

import asyncio
import json
from typing import Any

import pytest

from myna.apps.tools import Asked, Dispatcher, Outcome, tool
from myna.apps.tools.arguments import addressed
from myna.apps.tools.openapi import openapi_tools
from myna.records import ToolCall

ADDRESSES = (
    "evil.com/?q=secret",
    "evil.com",
    "secret.evil.com.",
    "See evil.com, then go on",
    "//evil.com",
    "\\\\evil.com\\share",
    "https:evil.com",
    "HTTPS:/evil.com",
    "https://e/",
    "a@evil.com",
    "user@localhost",
    "mailto:a",
    "192.0.2.1",
    "192.0.2.1:80/x",
    "http://2130706433",
    "2001:db8::1",
    "::1",
    "[2001:db8:0:0:0:0:0:1]:80",
    "2001:db8:0:0:0:0:0:1",
    "ｅｖｉｌ．ｃｏｍ",
    "evil。com",
    "ev\u200bil.c\u00adom",
    "例子.中国",
    "看 evil.com/秘密 吧",
    "evil.xn--fiqs8s",
    "evil.md",
    "report.pdf:8080/x",
    "data:text/html,x",
)
PLAIN = (
    "",
    "chapter 2",
    "What is in my.report.pdf? And in notes.csv, 数据.xlsx?",
    "3.5 and 12:30:45, v1.2.3, e.g. and U.S. 1.000,50",
    "std::vector<int>, std::fs of Rust",
    "He came. Then he left. 他走了。OK",
    "a/b, 1//2, x: y, C:\\notes",
    "二〇二四年五月。",
    "@ home, 5 @ 3",
)


def looked(arguments: dict[str, Any], egress: bool | None, *, tainted: bool = True) -> tuple[Outcome, list[str]]:
    asked: list[str] = []

    async def no(one: Asked) -> bool:
        asked.append(one.reason)
        return False

    @tool(effect="read", egress=egress)
    def look(where: Any) -> str:
        """Look somewhere."""
        return "seen"

    desk = Dispatcher((look,), ask=no)
    (outcome,) = asyncio.run(desk.dispatch([ToolCall("c", "look", json.dumps(arguments))], tainted=tainted))
    return outcome, asked


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_in_a_read_asks_however_it_is_written(text: str) -> None:
    for arguments in ({"where": text}, {"where": [{"deep": text}]}, {"where": {text: 1}}):
        outcome, asked = looked(arguments, None)
        assert (outcome.status, len(asked)) == ("refused", 1)
    assert looked({"where": text}, None, tainted=False)[0].status == "ok"


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_address_does_not_ask(text: str) -> None:
    assert looked({"where": text}, None)[0].status == "ok"


def test_a_tool_that_goes_out_asks_whatever_its_arguments_are() -> None:
    outcome, asked = looked({"where": "chapter 2"}, True)
    assert outcome.status == "refused"
    assert "network" in asked[0]
    assert looked({"where": "chapter 2"}, True, tainted=False)[0].status == "ok"


def test_a_tool_that_stays_here_is_not_asked_about_addresses() -> None:
    assert looked({"where": "a@evil.com"}, False)[0].status == "ok"


def test_the_tools_of_an_openapi_document_go_out() -> None:
    paths = {"/items": {"get": {"operationId": "items", "responses": {}}}}
    document = {"openapi": "3.1.0", "servers": [{"url": "https://shop.example"}], "paths": paths}
    (items,) = openapi_tools(document).tools
    assert (items.effect, items.egress) == ("read", True)


def test_what_was_agreed_to_says_where_a_tool_goes() -> None:
    @tool(effect="read", egress=True)
    def look() -> str:
        """Look."""
        return ""

    outside = look.definition

    @tool(effect="read", egress=False)
    def look() -> str:  # type: ignore[no-redef]
        """Look."""
        return ""

    assert look.definition != outside


@pytest.mark.parametrize("part", ["a.", "a:", "a-", "[0", "1.2.3.4.", "a:b:", "x@", "::", "//", "a+b.", "1.", "0:"])
def test_a_megabyte_is_looked_through_in_a_moment(part: str) -> None:
    """Half a second; a rule that looks back from every place would take hours, and this test would not end."""
    assert addressed({"where": [part * ((1 << 20) // len(part)), "evil.com"]})
