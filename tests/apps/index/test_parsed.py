"""The laws of a parsed document: whatever breaks one cannot be made."""

import pytest

from myna.apps.index.parsed import Page, Parsed, Section

TEXT = "第一章 开始\n看不见 here\n第二章 End\n"


@pytest.mark.parametrize(
    "pages",
    [
        (Page(1, 0, 5), Page(2, 6, len(TEXT))),  # a gap
        (Page(1, 0, 5), Page(2, 4, len(TEXT))),  # an overlap
        (Page(1, 0, 5),),  # the end is missing
        (Page(1, 1, len(TEXT)),),
        (Page(2, 0, len(TEXT)),),
    ],
)
def test_pages_that_do_not_cover_the_text_are_refused(pages: tuple[Page, ...]) -> None:
    with pytest.raises(ValueError, match="page"):
        Parsed(TEXT, pages=pages)


@pytest.mark.parametrize(
    "sections",
    [
        (Section("a", 1, None, 0, 10), Section("b", 2, 0, 5, 12)),  # reaches out of its parent
        (Section("a", 1, None, 0, 10), Section("b", 1, 0, 5, 10)),  # not deeper than its parent
        (Section("a", 1, None, 0, 10), Section("b", 1, None, 9, 12)),  # siblings overlap
        (Section("a", 1, 0, 0, 10),),  # its own parent
        (Section("a", 1, None, 0, 99),),
    ],
)
def test_sections_that_do_not_nest_are_refused(sections: tuple[Section, ...]) -> None:
    with pytest.raises(ValueError, match="section"):
        Parsed(TEXT, sections=sections)


@pytest.mark.parametrize("hidden", [((3, 3),), ((4, 6), (5, 7)), ((0, 99),), ((8, 9), (1, 2))])
def test_ranges_out_of_order_are_refused(hidden: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="hidden"):
        Parsed(TEXT, hidden=hidden)


def test_a_place_has_a_page_and_a_path_and_hidden_text_is_not_visible() -> None:
    cut = TEXT.index("第二章")
    parsed = Parsed(
        TEXT,
        sections=(Section("第一章 开始", 1, None, 0, cut), Section("第二章 End", 1, None, cut, len(TEXT))),
        pages=(Page(1, 0, cut), Page(2, cut, cut), Page(3, cut, len(TEXT))),
        hidden=((7, 10),),
    )
    assert [parsed.page_at(at).number for at in (0, cut - 1, cut, len(TEXT))] == [1, 1, 3, 3]  # type: ignore[union-attr]
    assert parsed.path_at(cut) == ("第二章 End",)
    assert parsed.visible() == TEXT.replace("看不见", "")
    assert parsed.visible(8, 13) == " he"
    assert parsed.empty_pages == (2,)
    assert Parsed(TEXT).page_at(3) is None
    assert Parsed("abcde", hidden=((1, 2), (3, 4))).visible() == "ace"
