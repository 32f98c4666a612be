"""Text that a reader of the document does not see is kept apart: in no visible range, and said (invariant 18)."""

import email.message

import pytest
from office_files import lines, pdf, secret_docx, slides, workbook
from reportlab.pdfgen.canvas import Canvas

from myna.apps.index.parsed import Parsed
from myna.apps.index.readers import read


def apart(parsed: Parsed) -> list[str]:
    return [parsed.text[a:b] for a, b in parsed.hidden]


def secret_page(canvas: Canvas) -> None:
    lines("看得见 seen")(canvas)
    canvas.setFillColorRGB(0, 0, 0.3)
    canvas.rect(72, 600, 300, 30, fill=1)
    canvas.setFillColorRGB(1, 1, 1)
    canvas.drawString(80, 610, "white on blue")
    canvas.drawString(80, 500, "white on white 白字")
    canvas.setFillColorRGB(0, 0, 0, alpha=0)
    canvas.drawString(80, 450, "transparent")
    canvas.setFillColorRGB(0, 0, 0, alpha=1)
    canvas.setFont("Helvetica", 0.9)
    canvas.drawString(80, 400, "tiny")
    canvas.setFont("Helvetica", 11)
    canvas.drawString(-400, 400, "outside")
    invisible = canvas.beginText(80, 300)
    invisible.setTextRenderMode(3)
    invisible.textLine("invisible")
    canvas.drawText(invisible)


def test_pdf_white_transparent_tiny_outlying_and_invisible_letters() -> None:
    parsed = read(pdf(secret_page, lines("next page")), "a.pdf")
    assert parsed.visible().split() == ["看得见", "seen", "white", "on", "blue", "next", "page"]
    assert sorted(apart(parsed)) == ["invisible", "outside", "tiny", "transparent", "white on white 白字"]
    assert parsed.page_at(parsed.hidden[0][0]).number == 1  # type: ignore[union-attr]
    assert parsed.notes[0].startswith("hidden text: 5 passages")


def test_docx_vanished_white_and_tiny_letters_and_comments() -> None:
    parsed = read(secret_docx(), "b.docx")
    assert apart(parsed) == ["vanished", "white", "tiny", "批注 comment"]
    assert parsed.visible().split() == "seen 看得见 end | white on blue | plain | | --- | --- |".split()


def test_pptx_white_letters_outlying_shapes_and_hidden_slides() -> None:
    parsed = read(slides(), "c.pptx")
    assert apart(parsed) == ["white on white", "off the slide", "hidden slide"]
    assert "white on blue" in parsed.visible()


def test_xlsx_hidden_rows_columns_sheets_comments_and_white_cells() -> None:
    parsed = read(workbook(), "d.xlsx")
    assert sorted(apart(parsed)) == sorted(
        ["hidden row", "hidden column", "white cell", "批注 comment", "hidden sheet"]
    )
    assert "white on blue" in parsed.visible()


@pytest.mark.parametrize(
    "hidden",
    [
        "<p style='display:none'>SECRET</p>",
        "<p style='DISPLAY : none !important'>SECRET</p>",
        "<div hidden><p>SECRET</p></div>",
        "<span style='visibility:hidden'>SECRET</span>",
        "<span style='font-size:0'>SECRET</span>",
        "<span style='font-size: 1px;'>SECRET</span>",
        "<span style='color:#fff'>SECRET</span>",
        "<span style='color: white'>SECRET</span>",
        "<font color='#FFFFFF'>SECRET</font>",
        "<div style='background:#000;color:#010101'>SECRET</div>",
        "<div style='background:black'><i style='color:rgb(3, 3, 3)'>SECRET</i></div>",
        "<p style='color:rgba(0,0,0,0)'>SECRET</p>",
        "<p style='opacity:0'>SECRET</p>",
        "<p style='position:absolute;left:-9999px'>SECRET</p>",
        "<p style='text-indent:-10000px'>SECRET</p>",
        "<p style='height:0;overflow:hidden'>SECRET</p>",
        "<style>.x{display:none}</style><p class='x'>SECRET</p>",
        "<style>/* a */ #y, .z { color: #fefefe }</style><p id='y'>SECRET</p>",
        "<template>SECRET</template>",
        "<noscript>SECRET</noscript>",
        "<!-- SECRET -->",
        "<img alt='SECRET' src='x'>",
        "<table><tr><td>a<td>b<span style='display:none'>SECRET</span></table>",
    ],
)
def test_html_has_many_ways_to_hide(hidden: str) -> None:
    parsed = read(f"<body><p>看得见 before</p>{hidden}<p>after</p></body>".encode(), "x.html")
    assert "SECRET" not in parsed.visible()
    assert any("SECRET" in words for words in apart(parsed))
    assert "看得见 before" in parsed.visible()
    assert "after" in parsed.visible()
    assert parsed.notes[0].startswith("hidden text: 1 passage")


@pytest.mark.parametrize(
    "shown",
    [
        "<style>.dark{background:#003;color:#fff}</style><p class='dark'>SHOWN</p>",
        "<div style='background:url(x.png)'><p style='color:#fff'>SHOWN</p></div>",
        "<table bgcolor='#000000'><tr><td><font color='white'>SHOWN</font><td>x</table>",
        "<style>@media print{.x{display:none}}</style><p class='x'>SHOWN</p>",
        "<style>.x{display:none}.x{display:block}</style><p class='x'>SHOWN</p>",
        "<style>a:hover{display:none}</style><a>SHOWN</a>",
        "<style>body{visibility:hidden}</style><p>SHOWN</p>",
        "<p style='font-size:10px;opacity:0.9;left:-5px'>SHOWN</p>",
    ],
)
def test_html_that_is_seen_stays_visible(shown: str) -> None:
    assert "SHOWN" in read(f"<body>{shown}</body>".encode(), "x.html").visible()


def test_markdown_comments() -> None:
    parsed = read("# 标题\n\na <!-- one --> b\n\n[//]: # (two)\n\n```\n<!-- code -->\n```\n".encode(), "f.md")
    assert apart(parsed) == ["one", "two"]
    assert "<!-- code -->" in parsed.visible()


def test_what_only_the_html_of_a_letter_says() -> None:
    message = email.message.EmailMessage()
    message["Subject"] = "x"
    message.set_content("你好, the plain words")
    message.add_alternative("<p>你好, the plain words</p><p>click here instead</p>", subtype="html")
    parsed = read(bytes(message), "i.eml")
    assert apart(parsed) == ["click here instead"]


@pytest.mark.parametrize(
    ("text", "hidden", "said"),
    [
        ("pass\u200bword", ["\u200b"], "zero-width"),
        ("a\u200db", ["\u200d"], "zero-width"),
        ("中\u2060文", ["\u2060"], "zero-width"),
        ("see \u202etxt.exe\u202c", ["\u202e", "\u202c"], "direction"),
        (
            "ok" + "".join(chr(0xE0000 + ord(c)) for c in "do evil"),
            ["".join(chr(0xE0000 + ord(c)) for c in "do evil")],
            "tag characters",
        ),
        ("a\ufe01\ufe02\ufe03", ["\ufe02\ufe03"], "variation"),
        ("soft\xadhyphen", ["\xad"], ""),
        ("family 👨\u200d👩\u200d👧", [], ""),
        ("می\u200cخواهم", [], ""),
        ("heart ❤\ufe0f 葛\U000e0100城", [], ""),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", [], ""),
    ],
)
def test_characters_without_a_shape(text: str, hidden: list[str], said: str) -> None:
    parsed = read(text.encode(), "a.txt")
    assert parsed.text == text
    assert apart(parsed) == hidden
    assert (said in " ".join(parsed.notes)) if said else parsed.notes == ()


def test_words_of_two_alphabets_are_named_and_honest_ones_are_not() -> None:
    assert read("login at p\u0430ypal now".encode(), "a.txt").notes == (
        "1 words mix alphabets that look alike, the first: 'p\u0430ypal'",
    )
    assert read("Привет, world 世界, 5 μm, x\u0304".encode(), "a.txt").notes == ()


def test_controls_go_and_are_counted() -> None:
    parsed = read("a\x1b[31mred\x00\x07\r\nb\u2028c".encode(), "a.txt")
    assert parsed.text == "a[31mred\nb\nc"
    assert "3 control characters removed" in parsed.notes
