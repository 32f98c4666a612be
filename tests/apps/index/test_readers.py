"""What each format's reader gives: the words, the sections, the pages, the tables; and the laws of spans."""

import email.message

import pytest
from office_files import lines, pdf, report_docx, slides, workbook

from myna.apps.index.parsed import Parsed
from myna.apps.index.readers import read
from myna.apps.index.worker import from_json, to_json

HTML = """<html><head><title>页面 Page</title></head><body><nav><a href="/">Home 首页</a></nav><main><h1>标题 One</h1><p>第一段 <b>bold</b>
text.</p><ul><li>item 一<li>item 二</ul><h2>二级</h2><table><tr><th>a<th>b<tr><td>1<td>2</table><pre>x  =  1
y</pre></main><footer>Copyright</footer></body></html>"""
MARKDOWN = """---
title: "标题"
---
# One

text

Two
---

```
# no heading
```

| a | b |
|---|---|
| 1 | 2 |

## Three ##
"""


def letter() -> bytes:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "李雷 <b@example.com>", "邮件 subject"
    message.set_content("你好, the words.\n")
    message.add_attachment(
        "城市,人口\n北京,2189\n".encode("gb18030"), maintype="text", subtype="csv", filename="表.csv"
    )
    message.add_attachment(report_docx(), maintype="application", subtype="octet-stream", filename="报告.docx")
    message.add_attachment(b"\0\1\2" * 100, maintype="application", subtype="octet-stream", filename="x.bin")
    inner = email.message.EmailMessage()
    inner["Subject"] = "inner letter"
    inner.set_content("deep words")
    message.add_attachment(inner)
    return bytes(message)


DOCUMENTS = {
    "a.pdf": pdf(lines("第一章 概述", size=20), lines("body 正文"), lambda canvas: None),
    "b.docx": report_docx(),
    "c.pptx": slides(),
    "d.xlsx": workbook(),
    "e.html": HTML.encode(),
    "f.md": MARKDOWN.encode(),
    "g.csv": "城市,人口\n北京,2189\n,\n上海,\n".encode(),
    "h.txt": "第一回 开始\n正文\n第二回 继续\nmore\n".encode("gb18030"),
    "i.eml": letter(),
}


def titles(parsed: Parsed) -> list[tuple[str, int]]:
    return [(section.title, section.level) for section in parsed.sections]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_reading_twice_is_equal_sections_begin_with_their_titles_and_nothing_is_lost_on_the_way(name: str) -> None:
    parsed = read(DOCUMENTS[name], name)
    assert parsed == read(DOCUMENTS[name], name) == from_json(to_json(parsed))
    for section in parsed.sections:
        line = parsed.text[section.start : section.end].split("\n")[0]
        assert section.title.strip("# ") in line
    if parsed.pages:
        assert "".join(parsed.text[page.start : page.end] for page in parsed.pages) == parsed.text
    assert parsed.text.strip()


def test_pdf_has_pages_headings_and_a_title() -> None:
    parsed = read(pdf(lines("第一章 概述", size=20), lines("body 正文"), lambda canvas: None), "x")
    assert (len(parsed.pages), parsed.empty_pages, parsed.title, parsed.kind) == (3, (3,), "季度报告", "pdf")
    assert titles(parsed) == [("第一章 概述", 1)]
    assert parsed.page_at(parsed.text.index("正文")).number == 2  # type: ignore[union-attr]


def test_lines_of_a_pdf_paragraph_are_joined_as_its_language_does() -> None:
    chinese = lines(
        "本公司在第三季度实现营业收入一百二十亿元，同比增长百分之八，其中云", "计算业务增长最快。", "另外一段。"
    )
    english = lines(
        "These words run over the end of the line, and one is hyphen-",
        "ated there, which nobody wants to see later.",
        font="Helvetica",
    )
    text = read(pdf(chinese, english), "a.pdf").text
    assert "其中云计算业务增长最快。\n另外一段。" in text
    assert "one is hyphenated there, which" in text


def test_a_pdf_outline_is_its_sections() -> None:
    def page(canvas: object) -> None:
        lines("Preface", "intro words", "Part One 第一部分", "words", size=11)(canvas)  # type: ignore[arg-type]
        canvas.bookmarkPage("p1")  # type: ignore[attr-defined]
        canvas.addOutlineEntry("Part One 第一部分", "p1", 0)  # type: ignore[attr-defined]

    def next_page(canvas: object) -> None:
        lines("1.1 Details", "more words")(canvas)  # type: ignore[arg-type]
        canvas.bookmarkPage("p2")  # type: ignore[attr-defined]
        canvas.addOutlineEntry("1.1  Details", "p2", 1)  # type: ignore[attr-defined]

    parsed = read(pdf(page, next_page), "a.pdf")
    assert titles(parsed) == [("Part One 第一部分", 1), ("1.1 Details", 2)]
    assert parsed.path_at(parsed.text.index("more words")) == ("Part One 第一部分", "1.1 Details")
    assert parsed.path_at(parsed.text.index("intro")) == ()


def test_docx_has_sections_lists_tables_and_headers() -> None:
    parsed = read(report_docx(), "b.docx")
    assert titles(parsed) == [("概述 Overview", 1), ("细节", 2), ("结论", 1)]
    assert parsed.path_at(parsed.text.index("- 北京\n- 上海")) == ("概述 Overview", "细节")
    assert [parsed.text[a:b] for a, b in parsed.tables] == ["| 城市 | 人口 |\n| --- | --- |\n| 北京 | 2189万 |"]
    assert parsed.path_at(parsed.text.index("页眉 Header")) == ()
    assert parsed.title == "城市报告"


def test_pptx_has_a_page_a_slide_with_table_chart_and_notes() -> None:
    parsed = read(slides(), "c.pptx")
    first = parsed.text[: parsed.pages[0].end]
    assert len(parsed.pages) == 3
    assert titles(parsed) == [("第一页 Title", 1), ("Notes", 2)]
    for words in ("正文 body", "| 温度 | 37 |", "| 东 | 1.5 |", "讲稿 what the speaker says"):
        assert words in first
    assert parsed.path_at(parsed.pages[1].start) == ()  # a slide without a title is in no section


def test_xlsx_rows_carry_the_names_of_their_columns() -> None:
    parsed = read(workbook(), "d.xlsx")
    assert [page.name for page in parsed.pages] == ["城市", "藏"]
    assert "城市: 北京; 人口: 21893095; 日期: 2020-11-01; 比例: 0.3\n" in parsed.text
    assert "城市: 上海; 人口: 24870895; 日期: 2020-11-01 08:30:00\n" in parsed.text
    assert "=SUM(B2:B3)" in parsed.text
    assert "1 formulas without a saved value, written as formulas" in parsed.notes


def test_html_has_a_main_text_and_keeps_what_stands_around_it() -> None:
    parsed = read(HTML.encode(), "e.html")
    main, around = (parsed.text[page.start : page.end] for page in parsed.pages)
    assert "第一段 bold text." in main
    assert "- item 一\n- item 二" in main
    assert "| 1 | 2 |" in main
    assert "x  =  1\ny" in main
    assert "Home 首页" in around
    assert "Copyright" in around
    assert "Home" not in main
    assert titles(parsed) == [("标题 One", 1), ("二级", 2)]
    assert parsed.path_at(parsed.text.index("Copyright")) == ()
    assert parsed.title == "页面 Page"


def test_html_without_a_main_element_is_one_text_in_order() -> None:
    parsed = read("<p>一<p>two<div>three<br>four</div>five<h3>six</h3>".encode(), "x.html")
    assert parsed.text == "一\n\ntwo\n\nthree\nfour\n\nfive\n\nsix"
    assert parsed.pages == ()


def test_markdown_is_kept_and_its_headings_outside_of_code_are_sections() -> None:
    parsed = read(MARKDOWN.encode(), "f.md")
    assert parsed.text == MARKDOWN.strip("\n")
    assert titles(parsed) == [("One", 1), ("Two", 2), ("Three", 2)]
    assert [parsed.text[a:b] for a, b in parsed.tables] == ["| a | b |\n|---|---|\n| 1 | 2 |"]
    assert parsed.title == "标题"


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv"), ("|", "a.csv")])
def test_records_are_written_with_their_columns(delimiter: str, name: str) -> None:
    rows = [["城市", "note"], ["北京", f'"a{delimiter}b"'], ["上海", ""]]
    parsed = read("\n".join(delimiter.join(row) for row in rows).encode(), name)
    assert parsed.text == f"城市: 北京; note: {f'a{delimiter}b'.replace(chr(9), ' ')}\n城市: 上海"


def test_a_table_without_a_head_keeps_plain_rows() -> None:
    assert read(b"1,2\n3,4\n", "a.csv").text == "1; 2\n3; 4"


def test_text_has_chapters_and_form_feeds_end_pages() -> None:
    parsed = read("第一回 开始\n正文\n\f第二回 继续\nmore\n".encode("utf-16"), "h.txt")
    assert titles(parsed) == [("第一回 开始", 2), ("第二回 继续", 2)]
    assert [page.number for page in parsed.pages] == [1, 2]
    assert parsed.notes == ("encoding: utf-16 (found, not declared)",)


def test_mail_has_its_attachments_as_pages_and_says_what_it_did_not_read() -> None:
    parsed = read(letter(), "i.eml")
    assert [page.name for page in parsed.pages] == ["message", "表.csv", "报告.docx", "attachment 4: message"]
    assert parsed.text.startswith(
        "From: a@example.com\nTo: 李雷 <b@example.com>\nSubject: 邮件 subject\n\n你好, the words."
    )
    assert "城市: 北京; 人口: 2189" in parsed.text
    assert "deep words" in parsed.text
    assert ("概述 Overview", 2) in titles(parsed)
    assert "attachment 'x.bin' was not read: no reader for binary files named .bin" in parsed.notes


def test_a_file_is_what_it_holds_whatever_it_is_called() -> None:
    assert read(DOCUMENTS["a.pdf"], "a.txt").kind == "pdf"
    assert read(DOCUMENTS["d.xlsx"], "a.docx").kind == "xlsx"
    assert read(HTML.encode(), "page").kind == "html"
    assert read(b"import os\n", "a.py").kind == "text"
