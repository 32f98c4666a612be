"""The page's Markdown renderer under node: what models write is shown, hostile or half finished, and never obeyed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import myna.serve

PAGE = Path(myna.serve.__file__).parent / "page"
HARNESS = Path(__file__).with_name("markdown_test.mjs")
TAGS = {"p", "br", "strong", "em", "del", "code", "pre", "a", "ul", "ol", "li", "blockquote", "hr", "div", "figure"}
TAGS |= {"figcaption", "span", "button", "table", "thead", "tbody", "tr", "th", "td", "h3", "h4", "h5", "h6"}

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def render(*cases: tuple[str, dict[str, Any]]) -> list[str]:
    run = subprocess.run(["node", HARNESS, PAGE], input=json.dumps(cases), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    shown: list[str] = json.loads(run.stdout)
    return shown


def html(text: str, **options: Any) -> str:
    return render((text, options))[0]


LINK = 'rel="noopener noreferrer nofollow" target="_blank"'
SHOWN = {
    "plain": ("Hello, 世界", "<p>Hello, 世界</p>"),
    "heading": ("# One\n## Two ##", "<h3>One</h3><h4>Two</h4>"),
    "emphasis": ("*a* **b** ***c*** ~~d~~ _e_ __f__", "<p><em>a</em> <strong>b</strong> <strong><em>c</em></strong> "
                 "<del>d</del> <em>e</em> <strong>f</strong></p>"),
    "nested emphasis": ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    "emphasis in emphasis": ("*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"),
    "chinese emphasis": ("这是**重点**。", "<p>这是<strong>重点</strong>。</p>"),
    "snake_case": ("snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"),
    "escape": (r"\*not\* \`code\`", "<p>*not* `code`</p>"),
    "code span": ("`a*b*` and ``x`y``", "<p><code>a*b*</code> and <code>x`y</code></p>"),
    "line break": ("one  \ntwo\nthree", "<p>one<br></br>two<br></br>three</p>"),
    "paragraphs": ("one\n\n\ntwo", "<p>one</p><p>two</p>"),
    "rule": ("a\n\n---\n\nb", "<p>a</p><hr></hr><p>b</p>"),
    "quote": ("> a\n> b\n>\n> > c", "<blockquote><p>a<br></br>b</p><blockquote><p>c</p></blockquote></blockquote>"),
    "list": ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    "ordered": ("3. a\n4. b\n   - c", '<ol start="3"><li>a</li><li>b<ul><li>c</li></ul></li></ol>'),
    "loose list": ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    "list after text": ("Things:\n- a\n- b", "<p>Things:</p><ul><li>a</li><li>b</li></ul>"),
    "table": ("| a | b |\n|---|--:|\n| 1 | `x|y` |", '<div class="table"><table><thead><tr><th>a</th><th class="right">b</th></tr>'
              '</thead><tbody><tr><td>1</td><td class="right"><code>x|y</code></td></tr></tbody></table></div>'),
    "no table": ("a | b\nc", "<p>a | b<br></br>c</p>"),
    "link": ("[a *b*](https://x.example/y \"t\")", f'<p><a href="https://x.example/y" {LINK}>a <em>b</em></a></p>'),
    "bare url": ("见https://x.example/a?b=1。", f'<p>见<a href="https://x.example/a?b=1" {LINK}>https://x.example/a?b=1</a>。</p>'),
    "bare url after space": ("see https://x.example/a,b.", f'<p>see <a href="https://x.example/a,b" {LINK}>https://x.example/a,b</a>.</p>'),
    "image": ("![cat](https://x.example/c.png)", f'<p><a href="https://x.example/c.png" {LINK}>cat</a></p>'),
}  # fmt: skip


def test_markdown_is_shown_as_it_is_meant() -> None:
    shown = render(*((text, {}) for text, _ in SHOWN.values()))
    assert dict(zip(SHOWN, shown, strict=True)) == {name: expected for name, (_, expected) in SHOWN.items()}


def test_code_in_a_list_keeps_its_indent() -> None:
    shown = html("1. a\n   ```py\n   x\n     y\n   ```\n2. b")
    assert "<pre><code>x\n  y</code></pre>" in shown
    assert shown.count("<li>") == 2


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x]( java\tscript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "<javascript:alert(1)>",
    "<https://x.example/\" onmouseover=\"alert(1)>",
    "[x](https://x.example/\"onmouseover=\"alert(1))",
    "[a](https://x.example/[b](javascript:alert(1)))",
    "[[x](javascript:1)](javascript:2)",
    "```\"><script>alert(1)</script>\ncode\n```",
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <script> | [x](javascript:1) |",
    "# <svg onload=alert(1)>",
    "`<b onclick=1>`",
    "https://x.example/<script>alert(1)</script>",
]  # fmt: skip


def test_nothing_a_model_writes_becomes_markup() -> None:
    for text, shown in zip(
        HOSTILE * 2, render(*((t, {"streaming": s}) for s in (False, True) for t in HOSTILE)), strict=True
    ):
        check_harmless(text, shown)


def check_harmless(text: str, shown: str) -> None:
    tags = re.findall(r"<(\w+)((?: [\w-]+=\"[^\"]*\")*)>", shown)
    assert {name for name, _ in tags} <= TAGS, text
    assert len(tags) == len(re.findall(r"<\w", shown)), text  # no tag with anything but plain attributes
    attributes = [pair for _, given in tags for pair in re.findall(r" ([\w-]+)=\"([^\"]*)\"", given)]
    assert {name for name, _ in attributes} <= {"href", "rel", "target", "class", "type", "start"}, text
    assert all(value.startswith(("http://", "https://", "mailto:")) for name, value in attributes if name == "href"), (
        text
    )


STREAMED = """Intro **bold** and `code`:

1. one
   - nested
2. two

```python
def f():
    return "```not a fence```"
```

| a | b |
|---|---|
| 1 | [x](https://x.example) |

> quote 引用

Last *line* 结束。"""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_stream_ends_as_the_whole_text_however_it_was_cut(size: int) -> None:
    pieces = [STREAMED[i : i + size] for i in range(0, len(STREAMED), size)]
    assert html(STREAMED, pieces=pieces) == html(STREAMED)


def test_a_fence_is_a_code_block_at_every_point_and_its_marks_are_never_shown() -> None:
    text = "```python\nx = 1\n```\nafter"
    begun = [text[:end] for end in range(len("```"), len(text) + 1)]
    for part, shown in zip(begun, render(*((part, {"streaming": True}) for part in begun)), strict=True):
        assert shown.startswith("<figure"), part
        assert "`" not in shown, part


@pytest.mark.parametrize(
    "text", ["a **bold** b", "a `code` b", "a ~~gone~~ b", "see [the page](https://x.example/a) b"]
)
def test_what_is_begun_does_not_show_its_marks(text: str) -> None:
    inside = [text[:end] for end in range(text.index(" ") + 4, len(text) + 1)]
    for part, shown in zip(inside, render(*((part, {"streaming": True}) for part in inside)), strict=True):
        if "[" not in part or "](" in part:
            assert not re.search(r"\*\*|`|~~|\]\(", re.sub(r"\"[^\"]*\"", "", shown)), part


def test_a_table_is_a_table_from_its_first_bar() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |"
    parts = [text[:end] for end in range(1, len(text) + 1)]
    assert all(shown.startswith('<div class="table">') for shown in render(*((p, {"streaming": True}) for p in parts)))


def test_ten_thousand_marks_are_shown_before_the_harness_gives_up() -> None:
    """Its limit is a minute; a renderer that searches to the end from every mark would freeze the page."""
    marks = ["[", "*", "**", "_", "`", "> ", "- ", "|", "![", "a](", "<", "~~", "\\", "*a ", "_a b", "`` `"]
    assert all(render(*((mark * 10_000, {}) for mark in marks)))


def test_a_block_that_did_not_change_is_not_built_again() -> None:
    """Or a selection in it would be lost at every token."""
    text = "one\n\ntwo three"
    assert html(text, pieces=["one\n\nt", "wo", " three"], count_first_blocks=True) == "1"


def test_the_page_never_makes_markup_from_text() -> None:
    code = "".join(path.read_text() for path in PAGE.glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", code)


@pytest.mark.parametrize("name", ["index.html", "style.css"])
def test_the_page_asks_nothing_of_other_sites_and_inlines_nothing(name: str) -> None:
    text = (PAGE / name).read_text()
    assert not re.search(r"https?://|style=|\son\w+=|<style|javascript:|@import|url\(", text)
