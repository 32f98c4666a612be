"""The API's page in a real browser: drawn from /openapi.json, under the same policy as the chat page."""

from collections.abc import Iterator

import pytest
from live_server import Live

from browser import CHROMIUM, Browser
from myna.provider import Scripted
from myna.serve import create_app
from myna.serve.openapi import OPERATIONS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Live(create_app(Scripted())) as server, Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.open(f"{server.url}/docs")
        browser.until("document.querySelectorAll('main > details').length > 0")
        yield browser


def test_every_endpoint_is_on_the_page_and_opens(page: Browser) -> None:
    assert page.evaluate("document.querySelectorAll('main > details').length") == len(OPERATIONS)
    page.evaluate("document.querySelectorAll('main > details').forEach((one) => { one.open = true; })")
    page.until("document.querySelectorAll('main > details .inside h3').length > 0")
    chat = "[...document.querySelectorAll('main > details')].find((d) => d.innerText.includes('/v1/chat/completions'))"
    page.until(f"{chat}.innerText.includes('messages')")
    text = page.evaluate(f"{chat}.innerText")
    for word in ("Request", "temperature", "required", "200: application/json or text/event-stream", "Error"):
        assert word in text
    page.evaluate(f"{chat}.querySelectorAll('li > details').forEach((one) => {{ one.open = true; }})")
    page.until(f"{chat}.innerText.includes('finish_reason')")
    assert page.evaluate("window.violations") == []
    assert page.complaints == []
