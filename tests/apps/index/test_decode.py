"""The encoding is found, and said. Texts that nobody here wrote: the examples Python's own codecs encode."""

import pytest

from myna.apps.index.decode import decode

CHINESE = "人工智能正在改变我们的生活。这份报告说明了二零二五年第三季度的主要结果，请各部门认真阅读。"
TRADITIONAL = "人工智慧正在改變我們的生活。這份報告說明了主要的結果，請各部門認真閱讀，謝謝大家。"
JAPANESE = "これは日本語の文章です。エンコーディングを正しく判定できるでしょうか。"
KOREAN = "이것은 한국어 문장입니다. 인코딩을 올바르게 판정할 수 있을까요?"
WESTERN = "Le café était fermé, très tôt. Der Zug fährt über München. “Quoted” – señor."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "utf-8"),
        (CHINESE, "utf-8-sig"),
        (CHINESE, "gb18030"),
        (CHINESE, "gbk"),
        (CHINESE[:12], "gb18030"),
        ("cell 值1, 值2", "gb18030"),  # whose bytes are valid UTF-8 too
        ("名称,城市\n1,北京\n", "gb18030"),
        (CHINESE, "utf-16"),
        (CHINESE + " 2025 Q3", "utf-16-le"),
        (CHINESE + " 2025 Q3", "utf-16-be"),
        (TRADITIONAL, "big5"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (KOREAN, "euc_kr"),
        (WESTERN, "cp1252"),
        ("e\u0301t\u0301 25 °C שָׁלוֹם", "utf-8"),
        ("plain ASCII", "ascii"),
    ],
)
def test_the_text_comes_back(text: str, encoding: str) -> None:
    found = decode(text.encode(encoding))
    assert found.text.lstrip("\ufeff") == text
    assert bool(found.notes) == (encoding not in ("utf-8", "utf-8-sig", "ascii"))


def test_a_damaged_byte_is_counted_and_spoils_nothing_else() -> None:
    data = (CHINESE * 20).encode()
    found = decode(data[:301] + b"\xff" + data[301:])
    assert found.encoding == "utf-8"
    assert found.text.count("\ufffd") <= 4
    assert found.text.startswith(CHINESE * 2)
    assert found.text.endswith(CHINESE * 17)
    assert "U+FFFD" in found.notes[0]


def test_what_is_declared_is_believed_when_it_fits() -> None:
    assert decode(KOREAN.encode("euc_kr"), "euc_kr").text == KOREAN
    assert decode(CHINESE.encode(), "no-such-thing").text == CHINESE


def test_any_bytes_are_some_text() -> None:
    assert decode(bytes(range(256)) * 4).text
