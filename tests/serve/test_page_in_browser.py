"""The chat page in a real browser, over a scripted model."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live_server import Live, eventually

from browser import CHROMIUM, Browser
from myna.provider import Scripted
from myna.records import Conversation, Message, ProviderError, RequestError, Sampling
from myna.serve import Keys, key_of
from myna.serve.keys import new_key

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
Start = Callable[..., Live]
Chat = Callable[..., Browser]
LAST = "document.querySelector('article.assistant:last-of-type > .text')"
READY = "document.querySelector('#model')?.options.length > 0"
ASKED = "document.querySelector('#key')?.open"
IDLE = "!document.body.classList.contains('busy')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def chat(live: Start, browser: Browser) -> Chat:
    """`chat(script)` opens the page of a server over it, ready to type."""

    def start(provider: Any, locale: str = "en-US", **options: Any) -> Browser:
        browser.open(live(provider, **options).url, locale)
        browser.until(ASKED if "keys" in options else READY)
        return browser

    return start


def say(browser: Browser, text: str) -> None:
    browser.evaluate("document.querySelector('#input').focus()")
    browser.type(text)
    browser.press("Enter")


def ask(browser: Browser, text: str) -> str:
    count = browser.evaluate("document.querySelectorAll('article.assistant').length")
    say(browser, text)
    browser.until(f"document.querySelectorAll('article.assistant').length > {count} && {IDLE}")
    answer: str = browser.evaluate(f"{LAST}.innerText")
    return answer


def test_an_answer_streams_in_and_no_policy_is_broken(chat: Chat) -> None:
    # With a delay: pieces that the browser reads at once have no seconds between them, and so no tokens/s.
    provider = Scripted(["**Hello**, `世界`!\n\n```py\nprint(1)\n```"], delay=0.05)
    browser = chat(provider)
    assert "print(1)" in ask(browser, "Hi")
    assert (
        browser.evaluate(f"{LAST}.querySelector('strong').textContent + {LAST}.querySelector('code').textContent")
        == "Hello世界"
    )
    assert provider.requests[0].what == Conversation.ask("Hi")
    assert "tokens/s" in browser.evaluate("document.querySelector('.stats').textContent")
    assert browser.evaluate("violations") == browser.complaints == []


def test_the_conversation_the_settings_and_the_seed_are_sent_and_survive_a_reload(chat: Chat) -> None:
    provider = Scripted(["One.", "Two."])
    browser = chat(provider)
    browser.evaluate("document.querySelector('#open-settings').click()")
    for selector, text in [("#system", "Be brief."), ("input[name=temperature]", "0.5"), ("input[name=seed]", "7")]:
        browser.evaluate(f"document.querySelector('{selector}').focus()")
        browser.type(text)
    ask(browser, "First")
    browser.call("Page.reload")
    browser.until(f"{READY} && {LAST}?.innerText === 'One.'")
    ask(browser, "Second")
    seen = provider.requests[1]
    assert seen.sampling == Sampling(temperature=0.5, seed=7)
    assert seen.what == Conversation.of(
        ("system", "Be brief."), ("user", "First"), ("assistant", "One."), ("user", "Second")
    )


def test_escape_stops_and_what_came_stays(chat: Chat) -> None:
    provider = Scripted(["word " * 10_000], delay=0.002)
    browser = chat(provider)
    say(browser, "Go on")
    browser.until(f"{LAST}?.innerText.length > 20")
    browser.press("Escape")
    browser.until(IDLE)
    eventually(lambda: provider.requests[0].outcome == "closed")
    assert browser.evaluate(f"{LAST}.innerText").startswith("word word")


def test_enter_in_an_input_method_does_not_send(chat: Chat) -> None:
    provider = Scripted(["ok"])
    browser = chat(provider)
    browser.evaluate("document.querySelector('#input').focus()")
    browser.call("Input.imeSetComposition", text="nihao", selectionStart=5, selectionEnd=5)
    browser.press("Enter", windowsVirtualKeyCode=229)
    assert provider.requests == []
    assert browser.evaluate(IDLE)


@pytest.mark.parametrize(
    "turn", [RequestError("The prompt is too long."), ("Half", ProviderError("The prompt is too long."))]
)
def test_an_error_shows_the_servers_words_and_can_be_tried_again(chat: Chat, turn: Any) -> None:
    browser = chat(Scripted([turn, "Better."]))
    ask(browser, "Hi")
    assert browser.evaluate("document.querySelector('.error p').textContent") == "The prompt is too long."
    browser.evaluate("document.querySelector('.error button').click()")
    browser.until(f"{LAST}?.innerText === 'Better.'")
    assert browser.evaluate("document.querySelectorAll('article').length") == 2


def test_editing_a_message_answers_anew_from_there(chat: Chat) -> None:
    provider = Scripted(["One.", "Two.", "Three."])
    browser = chat(provider)
    ask(browser, "First")
    ask(browser, "Second")
    browser.evaluate("document.querySelector('article.user .actions button').click()")
    browser.evaluate("document.querySelector('.editing textarea').select()")
    browser.type("Changed")
    browser.press("Enter")
    browser.until(f"{LAST}?.innerText === 'Three.' && document.querySelectorAll('article').length === 2")
    assert provider.requests[2].what == Conversation.ask("Changed")


def test_reasoning_is_folded_away(chat: Chat) -> None:
    browser = chat([Message("assistant", "5", reasoning_content="2 + 3")])
    assert ask(browser, "?") == "5"
    assert browser.evaluate("document.querySelector('.reasoning').open") is False
    assert browser.evaluate("document.querySelector('.reasoning .text').textContent") == "2 + 3"


def test_hostile_markdown_runs_nothing(chat: Chat) -> None:
    hostile = "<img src=x onerror='window.hit=1'> <script>window.hit=1</script> [x](javascript:window.hit=1) ![y](https://x.example/y.png)"
    browser = chat([hostile])
    assert "<img src=x" in ask(browser, "?")
    assert browser.evaluate("window.hit") is None
    assert browser.evaluate(f"{LAST}.querySelectorAll('img, script').length") == 0


def test_a_chinese_browser_reads_chinese(chat: Chat) -> None:
    browser = chat([], locale="zh-CN")
    assert browser.evaluate("document.documentElement.lang") == "zh-CN"
    assert browser.evaluate("document.querySelector('#send').textContent") == "发送"
    assert browser.evaluate("document.querySelector('#input').placeholder") == "输入消息"


def give_key(browser: Browser, key: str) -> None:
    browser.evaluate("document.querySelector('#key input').focus()")
    browser.type(key)
    browser.press("Enter")


def test_a_key_is_asked_for_once_a_tab_and_again_where_it_is_unknown(chat: Chat) -> None:
    key, told = new_key(), "document.querySelector('#key .error').textContent"
    browser = chat(Scripted(["One.", "Two."]), keys=Keys([key_of(key)]))
    assert browser.evaluate(told) == ""
    give_key(browser, "wrong")
    browser.until(f"{ASKED} && {told} === 'The server does not know this key.'")
    give_key(browser, key)
    browser.until(f"{READY} && !{ASKED}")
    assert ask(browser, "First") == "One."
    browser.call("Page.reload")
    browser.until(f"{READY} && {LAST}?.innerText === 'One.'")
    assert ask(browser, "Second") == "Two."
    assert key not in browser.evaluate("JSON.stringify(localStorage) + document.documentElement.outerHTML")
    assert key not in browser.evaluate("[...document.querySelectorAll('input, textarea')].map(e => e.value).join()")
    assert browser.evaluate("violations") == []


def test_who_gives_no_key_is_told_and_may_try_again(chat: Chat) -> None:
    key = new_key()
    browser = chat(Scripted(["One."]), keys=Keys([key_of(key)]))
    browser.press("Escape")
    browser.until(f"!{ASKED}")
    say(browser, "Hi")
    browser.until(ASKED)
    browser.evaluate("document.querySelector('#key button[type=button]').click()")
    browser.until(f"{IDLE} && !!document.querySelector('article .error p')")
    assert "asks for an API key" in browser.evaluate("document.querySelector('article .error p').textContent")
    browser.evaluate("document.querySelector('article .error button').click()")
    browser.until(ASKED)
    give_key(browser, key)
    browser.until(f"{LAST}?.innerText === 'One.' && {READY}")


def test_an_answer_that_failed_is_no_turn_of_the_next_request(chat: Chat) -> None:
    provider = Scripted([ProviderError("The engine stopped."), "Better."])
    browser = chat(provider)
    ask(browser, "First")
    assert ask(browser, "Second") == "Better."
    assert provider.requests[1].what == Conversation.of(("user", "First"), ("user", "Second"))
