"""Hostile documents end in a clear outcome: the child goes, the message stays, the next document is read."""

import io
import zipfile
from collections.abc import Iterator

import pytest
from office_files import lines, pdf, report_docx, slides, with_part, workbook, zipped

from myna.apps.index import draft, readers
from myna.apps.index.draft import Unreadable
from myna.apps.index.readers import _ooxml
from myna.apps.index.reading import Limits, Reader
from myna.records import DocumentError

LOL = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><d>&b;</d>'
XXE = b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/hostname">]><d>&a;</d>'


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader(Limits(seconds=30, memory=1 << 30)) as made:
        yield made


def still_reads(reader: Reader) -> bool:
    return reader.parse("# 标题\n\nwords".encode(), "next.md").sections[0].title == "标题"


def outcome(reader: Reader, data: bytes, name: str) -> str:
    try:
        reader.parse(data, name)
    except DocumentError as problem:
        return str(problem)
    return "read"


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "name", "why"),
    [
        (b"", "a.pdf", "empty"),
        (b"\x00" * 5000, "a.txt", "nothing but 5,000 blank bytes"),
        (pdf(lines("secret 秘密"), encrypt="password"), "a.pdf", "encrypted"),
        (b"%PDF-1.7\n" + b"\xde\xad" * 500, "a.pdf", "damaged or no PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le") * 9, "a.docx", "encrypted"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600, "a.doc", "Office before 2007"),
        (cut(report_docx()), "a.docx", "damaged"),
        (b"no zip at all", "a.xlsx", "damaged"),
        (zipped({"word/document.xml": b"<a><b></a>"}), "a.docx", "is no XML"),
        (zipped({"other": b"x"}), "a.zip", "no reader for a zip file named .zip"),
        (with_part(report_docx(), "word/document.xml", LOL), "a.docx", "entity bomb"),
        (with_part(workbook(), "xl/workbook.xml", LOL), "a.xlsx", "entity bomb"),
        (with_part(slides(), "ppt/slides/slide1.xml", XXE), "a.pptx", "entity bomb"),
        (
            zipped({"word/document.xml": b"<a>" + b"\0" * (300 << 20)}),
            "a.docx",
            "is no XML|unpacks to more than|memory",
        ),
        (zipped({f"p{n}": b"" for n in range(20_001)} | {"word/document.xml": b"<a/>"}), "a.docx", "20,002 parts"),
        (
            zipped({"word/document.xml": b"<a>" * 500_000 + b"</a>" * 500_000}),
            "a.docx",
            "nested too deeply|memory|died",
        ),
        (b"\x7fELF" + bytes(range(256)) * 8, "a.bin", "no reader for binary files"),
        (b'a,b\n"' + b"x" * 3_000_000 + b'",c\n', "a.csv", "its table cannot be read"),
        (b"\x00\x01\x02" * 300, "a.eml", "no e-mail"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_reason(reader: Reader, data: bytes, name: str, why: str) -> None:
    with pytest.raises(DocumentError, match=rf"(?s)^{name}: .*({why})"):
        reader.parse(data, name)
    assert still_reads(reader)


def test_a_zip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ooxml, "UNPACKED", 16 << 20)
    body = b"<w:p>" + b" " * (1 << 20)
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(20):
            part.write(body)
    assert len(out.getvalue()) < 1 << 20
    with pytest.raises(Unreadable, match="unpacks to more than 16 MiB"):
        readers.read(out.getvalue(), "bomb.docx")


def test_a_text_longer_than_the_limit_is_refused_and_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "MAX_CHARS", 1000)
    assert len(readers.read(b"x" * 1000, "a.txt").text) == 1000
    with pytest.raises(Unreadable, match="longer than 1,000 characters"):
        readers.read(b"x" * 1001, "a.txt")


def test_too_slow_too_hungry_and_crashing_readers_cost_one_child_each() -> None:
    many = pdf(*[lines("words 词" * 20)] * 150)
    with Reader(Limits(seconds=0.02)) as slow:
        slow.parse  # noqa: B018 - the child starts with the first document
        with pytest.raises(DocumentError, match=r"^a\.pdf: reading it takes longer than 0\.02 seconds"):
            slow.parse(many, "a.pdf")
        slow.limits = Limits()
        assert still_reads(slow)
        assert len(slow.parse(many, "a.pdf").pages) == 150
        slow.limits = Limits(seconds=1)
        with pytest.raises(DocumentError, match=r"^a\.html: reading it takes longer than 1 seconds"):
            slow.parse(b"<div>" * 300_000, "a.html")  # HTML5's rules ask all open elements, for each new one
    with Reader(Limits(memory=200 << 20)) as hungry:
        with pytest.raises(DocumentError, match=r"^a\.txt: .*(memory|died of it)"):
            hungry.parse(b"word " * (30 << 20), "a.txt")
        assert still_reads(hungry)


def test_a_reader_that_dies_says_how() -> None:
    with Reader() as reader:
        assert still_reads(reader)
        reader._child._process.kill()  # type: ignore[union-attr]
        with pytest.raises(DocumentError, match="SIGKILL"):
            reader.parse(b"words", "a.txt")
        assert still_reads(reader)


def test_a_table_of_ten_thousand_columns_keeps_its_cells_and_not_ten_thousand_copies_of_its_head(
    reader: Reader,
) -> None:
    head = ",".join(f"column number {n}" for n in range(10_000))
    data = "\n".join([head, *(",".join(["1"] * 10_000) for _ in range(50))]).encode()
    parsed = reader.parse(data, "wide.csv")
    assert len(parsed.text) < 2 * len(data)
    assert parsed.text.count("column number 9999") == 1
    assert "10,000 columns: rows are kept without the names of their columns" in parsed.notes


ATTACKS = [
    b"<div>" * 5_000 + "deep 深".encode(),
    b"<table><tr><td>" * 3000 + b"deep",
    b"<p>" + b"<b><i>" * 3000 + b"x",
    b"<style>" + b".a{display:none}" * 20_000 + b"</style><p class=b>seen",
    b"<style>" + b"{" * 100_000 + b"</style><p>seen",
    b"<!--" * 50_000 + b"words",
    b"<p style='" + b"color:#fff;" * 20_000 + b"'>x",
    b"<script>document.write('x')</script><p onclick=x>seen<iframe src=file:///etc/passwd></iframe>",
    b"<svg><text>x</text></svg><math><mi>y</mi></math><p>seen",
    b"<p>" + b"&#x10FFFF;&#xD800;&#0;" * 1000 + b"seen",
    b"<html><frameset></frameset></html>",
    b"<a" * 100_000,
]


@pytest.mark.parametrize("html", ATTACKS, ids=range(len(ATTACKS)))
def test_html_that_attacks_is_read(reader: Reader, html: bytes) -> None:
    parsed = reader.parse(html, "x.html")
    assert "root:" not in parsed.text
    assert ("seen" in parsed.visible()) == (b"seen" in html)
    assert ("deep" in parsed.visible()) == (b"deep" in html)


def test_damaged_bytes_anywhere_give_a_document_or_a_reason() -> None:
    """Every format, one byte flipped at forty places: an Unreadable, a note, or a Parsed whose laws hold; pdfium has its own child."""
    samples = {
        "b.docx": report_docx(),
        "c.pptx": slides(),
        "d.xlsx": workbook(),
        "a.pdf": pdf(lines("第一章 words"), lines("b")),
    }
    outcomes: list[str] = []
    with Reader(Limits(seconds=30)) as reader:
        for name, data in samples.items():
            for place in range(7, len(data), len(data) // 40):
                damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
                outcomes.append(outcome(reader, damaged, name))
    assert outcomes.count("read") > 10
    assert len(outcomes) - outcomes.count("read") > 10
    assert [said for said in outcomes if "reader failed" in said or "died" in said] == []


def test_letters_within_letters_end() -> None:
    letter = b"Subject: innermost\n\nwords"
    for n in range(30):
        head = f"Subject: outer\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n"
        letter = head.encode() + b"Content-Type: message/rfc822\n\n" + letter + f"\n--b{n}x--\n".encode()
    parsed = readers.read(letter, "a.eml")
    assert any("too deep" in note for note in parsed.notes)
    assert "innermost" not in parsed.text
