"""Templates come from strangers: they can be refused, and stopped, but never run away or reach into Python."""

import threading
from datetime import datetime

import pytest

from myna.chat import ChatTemplate, limits
from myna.chat.traced import MARKUP, TEXT, Origin, Traced
from myna.records import ChatError, MynaError, RequestError

USER = Origin("user", 0)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limit, reached sooner."""
    monkeypatch.setattr(limits, "SECONDS", 0.2)


def run(source: str, content: str = "hello", **more: object) -> Traced:
    message = {"role": Traced("user", MARKUP), "content": Traced(content, USER), "extra": "plain"}
    return ChatTemplate(source, lambda: datetime(2024, 7, 26)).render({"messages": [message], **more}, len(content))


# Each asks for endless time, endless memory, or both.
RUNAWAYS = [
    "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "{% set ns = namespace(s=[]) %}{% for a in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[]) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s + [1] %}{% endfor %}",
    "{% set ns = namespace(s={}) %}{% for a in range(99) %}{% set ns.s = dict(a=ns.s, b=ns.s) %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=1) %}{% for a in range(60) %}{% set n = namespace(a=ns.s, b=ns.s) %}{% set ns.s = [n, n] %}"
    "{% endfor %}{{ ns.s }}{% for a in range(9999999) %}{% endfor %}",
    "{% set ns = namespace(n=9) %}{% for a in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'x' }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ ['x' * 100000] * 100000 | join }}",
    "{{ (['x' * 900000] * 9000) | select | join }}",
    "{{ range(99999) | map('string') | map('center', 99999) | join }}",
    "{{ 'x' | center(10 ** 9) }}",
    "{{ 'x'.center(10 ** 9) }}",
    "{{ 'x'.ljust(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ '\t'.expandtabs(10 ** 9) }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%.999999999f' % 1 }}",
    "{{ '%(a)999999999s' % {'a': 1} }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ 'x\nx' | indent(10 ** 9) }}{{ 'x' * 9999999 }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
    "{{ [[[1]]] | tojson(indent=10 ** 9) }}",
    "{{ 1.5 | round(10 ** 9) }}",
    "{{ 'x' | wordwrap(1, wrapstring='x' * 999999) }}",
    "{{ lipsum(10 ** 6) }}",
    "{{ strftime_now('%09999999d') }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ ('f' * 900000) | int(base=16) // 3 }}",
    "{{ ('a' * 900000).rfind('b' + 'a' * 400000) }}",
    "{{ ('a' * 900000).strip('b' * 400000 + 'a') }}",
    "{{ ('a' * 900000) | trim('b' * 400000 + 'a') }}",
    "{{ ('ab' * 400000).replace('a', 'x' * 400000) }}",
    "{{ ('x' * 99999).join(['a'] * 99999) }}",
    "{{ (['a'] * 99999) | join('x' * 99999) }}",
    "{{ [range(99999)] * 9999 | map('list') | list }}",
    "{{ [range(99999)] * 9999 | map('sum') | list }}",
    "{{ ([[0] * 9] * 9999) | sum(start=[]) | length }}" * 400,
    "{% autoescape 'x' * 10 ** 9 %}{% endautoescape %}",
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "{{ " + "[" * 9999 + "]" * 9999 + " }}",
    "{{ " + "-" * 9999 + "1 }}",
    "{{ " + "1 + " * 99999 + "1 }}",
    "{% if true %}" * 500 + "{% endif %}" * 500,
    "{% for a in [1] %}" * 500 + "{% endfor %}" * 500,
    "x" * 300_000,
]


@pytest.mark.parametrize("source", RUNAWAYS, ids=lambda s: s[:60])
def test_a_runaway_template_is_stopped(source: str) -> None:
    with pytest.raises(ChatError):
        run(source)


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ messages.__class__.__mro__ }}",
    "{{ messages[0].content.parts }}",
    "{{ messages[0].content._cut(0, 1) }}",
    "{{ [messages] | map(attribute='__class__') | list }}",
    "{{ [messages] | map(attribute='0.content.__class__.__mro__') | list }}",
    "{{ [''] | groupby('__class__') }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '{0[__class__]}'.format(messages) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ '%s'.__mod__(1) }}",
    "{{ range.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ namespace.__init__ }}",
    "{{ dict.fromkeys('ab') }}",
    "{{ cycler }}{{ cycler.__init__.__globals__ }}",
    "{{ joiner('x')() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "{% for x in [1] %}{{ loop._iterator }}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{{ ''.encode() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages.clear() }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{{ config }}{{ request.x }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_reaches_nothing_but_its_data(source: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    try:
        shown = str(ChatTemplate(source).render({"messages": messages}, 5))
    except MynaError:
        shown = ""
    assert "<" not in shown
    assert "object" not in shown
    assert messages == [{"role": "user", "content": "hello"}]


def test_limits_hold_on_many_threads_at_once() -> None:
    outcomes: list[str] = []

    def attempt(source: str) -> None:
        try:
            outcomes.append(str(run(source)))
        except ChatError:
            outcomes.append("stopped")

    loop = "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}"
    threads = [threading.Thread(target=attempt, args=(s,)) for s in (loop, "{{ messages[0].content }}", loop)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["hello", "stopped", "stopped"]


def test_a_templates_refusal_is_the_requests_fault_in_its_own_words() -> None:
    with pytest.raises(RequestError, match="roles must alternate") as e:
        run("{{ raise_exception('roles must alternate') }}")
    assert e.value.param == "messages"


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ChatError, match="line 2"):
        ChatTemplate("fine\n{% if %}")


def test_the_clock_is_the_callers() -> None:
    assert run("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


# What templates in the wild do to text, and what may be trusted afterwards.
ORIGINS = [
    ("<s>{{ messages[0].content | trim }}</s>", [("<s>", MARKUP), ("hello", USER), ("</s>", MARKUP)]),
    ("{{ '<s>' + messages[0]['content'] + '</s>' }}", [("<s>", MARKUP), ("hello", USER), ("</s>", MARKUP)]),
    ("{{ '<' ~ messages[0].role ~ '>' ~ messages[0].content }}", [("<user>", MARKUP), ("hello", USER)]),
    ("{% set x %}<s>{{ messages[0].content }}{% endset %}{{ x }}", [("<s>", MARKUP), ("hello", USER)]),
    ("{% macro m(t) %}<s>{{ t }}{% endmacro %}{{ m(messages[0].content) }}", [("<s>", MARKUP), ("hello", USER)]),
    ("{{ messages[0].content.split('e')[1] }}", [("llo", USER)]),
    ("{{ messages[0].content[1:3] | upper }}", [("EL", USER)]),
    ("{{ '<s>%s' % messages[0].content }}", [("<s>", MARKUP), ("hello", USER)]),
    ("{{ '<s>{}'.format(messages[0].content) }}", [("<s>", MARKUP), ("hello", USER)]),
    ("{{ ['<s>', messages[0].content] | join('|') }}", [("<s>|", MARKUP), ("hello", USER)]),
    ("{{ 'a@b'.replace('@', messages[0].content) }}", [("a", MARKUP), ("hello", USER), ("b", MARKUP)]),
    ("{{ messages[0].content.replace('ell', '<s>') }}", [("h", USER), ("<s>", MARKUP), ("o", USER)]),
    ("{{ '<s>' + (messages[0].content | title) }}", [("<s>", MARKUP), ("Hello", TEXT)]),
    ("{{ '<s>' + messages[0].extra }}", [("<s>", MARKUP), ("plain", TEXT)]),
    ("{{ '<s>' ~ messages[0].extra ~ [1] }}", [("<s>", MARKUP), ("plain[1]", TEXT)]),
    ("{{ ['<s>', messages[0].extra] | join }}", [("<s>", MARKUP), ("plain", TEXT)]),
    ("{{ messages[0].extra + '<s>' }}", [("plain", TEXT), ("<s>", MARKUP)]),
    ("{% filter upper %}a{{ messages[0].content }}{% endfilter %}", [("A", MARKUP), ("HELLO", USER)]),
    ("{% generation %}{{ messages[0].content }}{% endgeneration %}", [("hello", USER)]),
]


@pytest.mark.parametrize(("source", "parts"), ORIGINS, ids=[s for s, _ in ORIGINS])
def test_text_remembers_its_author(source: str, parts: list[tuple[str, Origin]]) -> None:
    assert list(run(source).parts) == parts
