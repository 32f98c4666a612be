"""A folder of documents: every file has an outcome, and the report adds up."""

import os
from pathlib import Path

import pytest
from office_files import lines, pdf, report_docx

from myna.apps.index import reading
from myna.apps.index.folder import Outcome, read_folder, report
from myna.apps.index.ocr import _command, picture_text
from myna.apps.index.reading import read_file
from myna.records import DocumentError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "文件夹 docs"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("no document")
    (root / "a.pdf").write_bytes(pdf(lines("第一章", size=20), lambda canvas: None, lines("<end>")))
    (root / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (root / "empty.txt").write_bytes(b"")
    (root / "sub" / "报告.docx").write_bytes(again := report_docx())
    (root / "sub" / "again.docx").write_bytes(again)
    (root / "sub" / "deep" / "x.html").write_text("<p>seen<p hidden>SECRET", encoding="utf-8")
    (root / "z.bin").write_bytes(b"\x00\x01" * 99)
    (tmp_path / "outside.txt").write_text("outside")
    (root / "link_out.txt").symlink_to(tmp_path / "outside.txt")
    (root / "link_in.pdf").symlink_to(root / "a.pdf")
    (root / "link_dir").symlink_to(root / "sub")
    (root / "link_none").symlink_to(root / "nothing")
    os.mkfifo(root / "pipe")
    return root


def test_every_file_has_one_outcome_and_none_costs_another(folder: Path) -> None:
    outcomes = {outcome.path: outcome for outcome in read_folder(folder)}
    assert {path: outcome.skipped for path, outcome in outcomes.items() if outcome.skipped} == {
        ".git": "its name begins with a dot",
        "broken.pdf": "it is damaged or no PDF: Failed to load document (PDFium: Data format error).",
        "empty.txt": "it is empty",
        "link_dir": "a link to a folder",
        "link_none": "a link to nothing",
        "link_out.txt": "a link out of the folder",
        "pipe": "it is no regular file",
        "z.bin": "no reader for binary files named .bin",
    }
    assert {path for path, outcome in outcomes.items() if outcome.parsed} == {
        "a.pdf",
        "sub/again.docx",
        "sub/deep/x.html",
    }
    assert outcomes["link_in.pdf"].same_as == "a.pdf"
    assert outcomes["sub/报告.docx"].same_as == "sub/again.docx"
    assert "outside" not in "".join(outcome.parsed.text for outcome in outcomes.values() if outcome.parsed)


def test_the_report_adds_up_and_is_printed(folder: Path) -> None:
    made = report(read_folder(folder))
    assert made.read + len(made.duplicates) + len(made.skipped) == len(list(read_folder(folder)))
    assert made.empty == {"a.pdf": (2,)}
    assert made.hidden == {"sub/deep/x.html": len("SECRET")}
    printed = "\n".join(made.lines())
    for words in (
        "documents read (",
        "1 empty page, ",
        "8 files skipped",
        "link_out.txt: a link out of the folder",
        "link_in.pdf = a.pdf",
    ):
        assert words in printed


def test_a_file_that_is_read_alone_says_what_it_is(folder: Path) -> None:
    document = read_file(folder / "a.pdf")
    assert (document.size, document.parsed.kind) == ((folder / "a.pdf").stat().st_size, "pdf")
    with pytest.raises(DocumentError, match=r"there is no file .*nothing\.pdf"):
        read_file(folder / "nothing.pdf")
    for name in ("sub", "pipe", "z.bin"):
        with pytest.raises(DocumentError, match=f"{name}: "):
            read_file(folder / name)
    with pytest.raises(DocumentError, match="pipe: it is no regular file"):
        read_file(folder / "pipe")
    with pytest.raises(DocumentError, match="it is no folder"):
        list(read_folder(folder / "a.pdf"))


def test_a_file_over_the_size_limit_is_not_loaded(tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    with big.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(DocumentError, match="more than 256 MiB"):
        reading.load(big, 256 << 20)


def test_names_that_attack_are_shown_harmless(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\nb\u202etxt.md").write_text("# x")
    (tmp_path / os.fsdecode(b"\xff\xfe.md")).write_text("# y")
    made = list(read_folder(tmp_path))
    assert len(made) == 2
    assert all(isinstance(outcome, Outcome) and outcome.parsed for outcome in made)
    for outcome in made:
        assert outcome.name.encode().decode().isprintable()


def test_different_names_stay_different_however_they_are_shown(tmp_path: Path) -> None:
    names = (
        "a\nb.md",
        "a\tb.md",
        "a\ufffdb.md",
        "a\ufffd0ab.md",
        "a\x80b.md",
        os.fsdecode(b"a\x80b.md"),
        "a\u202eb.md",
    )
    for name in names:
        (tmp_path / name).write_text(f"# {name!r}")
    made = list(read_folder(tmp_path))
    assert len({outcome.name for outcome in made}) == len({outcome.path for outcome in made}) == len(names)
    assert {outcome.path for outcome in made} == set(names)
    assert reading.shown("docs/桥 é.md") == "docs/桥 é.md"


def test_a_copy_of_what_could_not_be_read_is_read_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00\x01" * 99)
    (tmp_path / "b: c.txt").write_bytes(b"\x00\x01" * 99)
    (tmp_path / "d: e.pdf").write_bytes(b"")
    a, b, d = read_folder(tmp_path)
    assert a.skipped == "no reader for binary files named .bin"
    assert (b.same_as, b.skipped, b.parsed is None) == ("", "", False)
    assert d.skipped == "it is empty"


def test_scans_go_to_tesseract_where_it_is_and_are_noted_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the command: it says which languages it has, and how large the picture is that it was given."""
    from PIL import Image

    scan = tmp_path / "scan.png"
    Image.new("L", (300, 200), 255).save(scan)
    page = tmp_path / "scan.pdf"
    page.write_bytes(pdf(lambda canvas: canvas.drawImage(str(scan), 0, 0, 500, 700), lines("text 文字")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_file(page).parsed.needs_ocr == (1,)
    assert read_file(scan).parsed.notes == ("a picture, which needs OCR (install tesseract)",)

    command = tmp_path / "tesseract"
    command.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --list-langs ]; then printf "List of languages\\nchi_sim\\neng\\n"; exit; fi\n'
        'printf "认出的字 %s " "$4"; /usr/bin/od -An -tx1 -N8 | /usr/bin/tr -d " \\n"\n'
    )
    command.chmod(0o755)
    parsed = read_file(page).parsed
    assert parsed.text.startswith("认出的字 chi_sim+eng 89504e470d0a1a0a\n\ntext 文字")
    assert (parsed.needs_ocr, parsed.notes) == ((), ("1 pages read by OCR",))
    _command.cache_clear()
    command.write_text("#!/bin/sh\nexit 1\n")
    assert picture_text(lambda: b"x") is None
    _command.cache_clear()
