"""Documents for the tests, written by the libraries people write them with."""

import datetime
import io
import zipfile
from collections.abc import Callable
from typing import Any

import docx
import openpyxl
import pptx
from docx.shared import RGBColor
from openpyxl.comments import Comment
from openpyxl.styles import Font, PatternFill
from pptx.chart.data import CategoryChartData
from pptx.dml.color import RGBColor as SlideColour
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

SONG = "STSong-Light"
pdfmetrics.registerFont(UnicodeCIDFont(SONG))


def saved(thing: Any) -> bytes:
    out = io.BytesIO()
    thing.save(out)
    return out.getvalue()


def pdf(*pages: Callable[[Canvas], None], encrypt: str | None = None) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, encrypt=encrypt, invariant=1)
    canvas.setTitle("季度报告")
    for page in pages:
        canvas.setFont(SONG, 11)
        page(canvas)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def lines(*texts: str, top: float = 750, font: str = SONG, size: float = 11) -> Callable[[Canvas], None]:
    def page(canvas: Canvas) -> None:
        canvas.setFont(font, size)
        for n, text in enumerate(texts):
            canvas.drawString(72, top - 1.4 * size * n, text)

    return page


def report_docx() -> bytes:
    document = docx.Document()
    document.core_properties.title = "城市报告"
    document.add_heading("概述 Overview", 1)
    document.add_paragraph("城市在增长。Cities grow.")
    document.add_heading("细节", 2)
    for item in ("北京", "上海"):
        document.add_paragraph(item, style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ("城市", "人口", "北京", "2189万"), strict=True
    ):
        cell.text = text
    document.add_heading("结论", 1)
    document.sections[0].header.paragraphs[0].text = "页眉 Header"
    return saved(document)


def secret_docx() -> bytes:
    document = docx.Document()
    paragraph = document.add_paragraph("seen 看得见 ")
    paragraph.add_run("vanished").font.hidden = True
    paragraph.add_run("white").font.color.rgb = RGBColor(255, 255, 255)
    paragraph.add_run("tiny").font.size = docx.shared.Pt(1)
    document.add_comment(paragraph.add_run(" end"), text="批注 comment", author="A")
    table = document.add_table(1, 2)
    shade = docx.oxml.parse_xml(f'<w:shd {docx.oxml.ns.nsdecls("w")} w:val="clear" w:fill="003366"/>')
    table.cell(0, 0)._tc.get_or_add_tcPr().append(shade)
    table.cell(0, 0).paragraphs[0].add_run("white on blue").font.color.rgb = RGBColor(255, 255, 255)
    table.cell(0, 1).text = "plain"
    return saved(document)


def slides() -> bytes:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "第一页 Title", "正文 body"
    slide.notes_slide.notes_text_frame.text = "讲稿 what the speaker says"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(3), Inches(1)).table
    for place, text in {(0, 0): "项", (0, 1): "值", (1, 0): "温度", (1, 1): "37"}.items():
        table.cell(*place).text = text
    chart = CategoryChartData()
    chart.categories = ["东", "西"]
    chart.add_series("销量", (1.5, 2))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(5), Inches(3), Inches(1), chart)
    second = deck.slides.add_slide(deck.slide_layouts[6])
    _white(second, "white on white", 1)
    behind = second.shapes.add_shape(1, Inches(1), Inches(4), Inches(4), Inches(2))
    behind.fill.solid()
    behind.fill.fore_color.rgb = SlideColour(0, 0, 80)
    _white(second, "white on blue", 4)
    second.shapes.add_textbox(Inches(-9), Inches(1), Inches(2), Inches(1)).text_frame.text = "off the slide"
    third = deck.slides.add_slide(deck.slide_layouts[5])
    third.shapes.title.text = "hidden slide"
    third._element.set("show", "0")
    return saved(deck)


def _white(slide: Any, text: str, top: float) -> None:
    box = slide.shapes.add_textbox(Inches(1), Inches(top), Inches(3), Inches(1))
    run = box.text_frame.paragraphs[0].add_run()
    run.text, run.font.color.rgb = text, SlideColour(255, 255, 255)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "城市"
    sheet.append(["城市", "人口", "日期", "比例"])
    sheet.append(["北京", 21893095, datetime.date(2020, 11, 1), 0.1 + 0.2])
    sheet.append(["上海", 24870895, datetime.datetime(2020, 11, 1, 8, 30), None])
    sheet.append(["", None, "=SUM(B2:B3)", ""])
    sheet.append(["hidden row"])
    sheet.row_dimensions[5].hidden = True
    sheet["H2"] = "hidden column"
    sheet.column_dimensions["H"].hidden = True
    sheet["A2"].comment = Comment("批注 comment", "x")
    sheet["A7"], sheet["B7"] = "white cell", "white on blue"
    sheet["A7"].font = sheet["B7"].font = Font(color="FFFFFFFF")
    sheet["B7"].fill = PatternFill("solid", fgColor="FF003366")
    other = book.create_sheet("藏")
    other["A1"], other.sheet_state = "hidden sheet", "hidden"
    return saved(book)


def zipped(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def with_part(package: bytes, name: str, data: bytes) -> bytes:
    """The same Office file with one part replaced."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    return zipped(parts | {name: data})
