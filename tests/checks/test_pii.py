"""Personal data: what is found and what is not, masks that turn back, and time that grows with the text alone."""

import random
import string
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from said import judged, marked, said

from myna.checks import Named
from myna.checks.pii import KINDS, Pii, find_pii, mask, unmask
from myna.checks.pii_numbers import CN_WEIGHTS, is_card, is_cn_id, is_iban, is_luhn, is_ssn
from myna.records import Conversation

FOUND = [
    ("email", "wang.xiao+a@mail.example.com.cn", "写信到{}。"),
    ("email", "bob_o'neil@example.co"[7:], "Mail: {}, please"),
    ("phone", "13812345678", "手机{}，谢谢"),
    ("phone", "+86 138-1234-5678", "call {} now"),
    ("phone", "010-62345678", "电话：{}"),
    ("phone", "１３８１２３４５６７８", "我的号码是{}。"),
    ("phone", "138\u200b1234\u200b5678", "手机 {}"),
    ("phone", "(212) 555-0123 x12", "reach me at {}."),
    ("phone", "+44 20 7946 0958", "UK: {}"),
    ("phone", "020 7946 0958", "UK: {}"),
    ("phone", "400-820-8820", "热线{}"),
    ("cn_id", "11010519491231002X", "身份证号{}。"),
    ("cn_id", "440308199901101512", "ID {} ok"),
    ("credit_card", "4111 1111 1111 1111", "card {} exp"),
    ("credit_card", "378282246310005", "Amex {}"),
    ("credit_card", "6222021234567890128", "卡号{}，"),
    ("iban", "GB82 WEST 1234 5698 7654 32", "IBAN {} thanks"),
    ("iban", "DE89370400440532013000", "到{}。"),
    ("ip", "192.168.10.254", "host {}, port"),
    ("ip", "2001:db8:85a3::8a2e:370:7334", "at {} now"),
    ("ip", "::ffff:10.0.0.1", "at {} now"),
    ("mac", "00:1A:2b:3c:4d:5e", "mac {}"),
    ("us_ssn", "078-05-1120", "SSN {}."),
    ("us_ssn", "078051120", "my social security number is {}."),
    ("passport", "E12345678", "护照号码：{}"),
    ("plate", "京A12345", "车牌{}。"),
    ("plate", "粤BD12345", "新能源车{}停在"),
    ("secret", "sk-abcdefghijklmnopqrstuvwx1234", "key={}"),
    ("secret", "AKIAIOSFODNN7EXAMPLE", "aws {} x"),
    ("secret", "hunter2!", "password: {}"),
    ("secret", "abc12345", "密码是{}，"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "Bearer {}"),
    ("secret", "s3cret", "https://bob:{}@host/x"),
]


@pytest.mark.parametrize(("kind", "value", "where"), FOUND)
def test_what_is_somebodys_is_found(kind: str, value: str, where: str) -> None:
    text = where.format(value)
    assert [(text[span.start : span.end], span.label) for span in find_pii(text)] == [(value, kind)]


@pytest.mark.parametrize(
    "text",
    [
        "110105194912310021 has a wrong check digit",
        "4111 1111 1111 1112 fails Luhn",
        "GB82 WEST 1234 5698 7654 33 fails its checksum",
        "on 2024-01-15 at 12:30:45, or 3/4/2021",
        "π is 3.14159265358979, version 1.2.3, 1,234,567.89 dollars",
        "ISBN 978-3-16-148410-0, order 20240115001234567",
        "000-12-3456 and 666-12-3456 were never given out, 078-05-112033333 is none",
        "256.1.1.1 and 1.2.3.4.5 are no addresses; a::b::c neither",
        "password: required; the password is wrong",
        "他在2024年1月15日买了12345件，共678901234元",
        "me@localhost, @handle, a@b",
        "std::vector<int>, 12:30, C::D",
        "E12345678 without the word",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert find_pii(text) == []


def test_a_verdict_says_how_many_of_what_and_never_what() -> None:
    text = "a@example.com, b@example.com, 13812345678"
    found = judged("pii", text)
    assert (found.ok, found.reason) == (False, "2 email, 1 phone")
    assert marked(found, text)[0] == ("a@example.com", "email")
    assert judged({"pii": {"kinds": ["iban"]}}, text).ok
    assert judged({"pii": {"allow": ["a@example.com", "b@example.com"], "kinds": ["email"]}}, text).ok


def test_masks_are_the_same_for_the_same_and_go_on_from_earlier_ones() -> None:
    first = mask("a@example.com wrote to b@example.com and a@example.com")
    assert first.text == "<EMAIL_1> wrote to <EMAIL_2> and <EMAIL_1>"
    second = mask("b@example.com, c@example.com", first.values)
    assert second.text == "<EMAIL_2>, <EMAIL_3>"
    assert unmask("<EMAIL_3> 和 <EMAIL_1>, <EMAIL_9>", second.values) == "c@example.com 和 a@example.com, <EMAIL_9>"


def test_a_placeholder_that_stands_in_the_text_is_nobody_elses() -> None:
    masked = mask("<EMAIL_1> is not a@example.com")
    assert masked.text == "<EMAIL_1> is not <EMAIL_2>"
    assert unmask(masked.text, masked.values) == "<EMAIL_1> is not a@example.com"


PIECES = st.one_of(
    st.sampled_from(
        [value for _, value, _ in FOUND] + ["<EMAIL_1>", "<PHONE_2>", "password:", "护照", "，", " ", "\n"]
    ),
    st.text(max_size=6),
    st.text(alphabet="0123456789-+() .:x", max_size=20),
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=12).map("".join))
@example("<EMAIL_1>a@example.com")
def test_what_was_masked_turns_back_into_itself_and_spans_are_apart(text: str) -> None:
    spans = find_pii(text)
    assert all(0 <= span.start < span.end <= len(text) and span.label in KINDS for span in spans)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    masked = mask(text)
    assert unmask(masked.text, masked.values) == text
    for span in spans:
        assert text[span.start : span.end] in masked.values.values()


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_mended_answer_passes(text: str) -> None:
    check = Named.from_json("pii").make()
    assert isinstance(check, Pii)
    mended = check.mend(text)
    assert check(Conversation(()), said(mended)).spans == (), (text, mended)


def test_checksums_are_those_of_the_standards() -> None:
    """Of every number with its last digit changed, exactly one is right."""
    draw = random.Random(0)
    for _ in range(200):
        body = [draw.randint(0, 9) for _ in range(15)]
        cards = ["".join(map(str, [4, *body[1:], digit])) for digit in range(10)]
        assert sum(map(is_luhn, cards)) == 1
        person = (
            f"110105{draw.randint(1930, 2010)}{draw.randint(1, 12):02}{draw.randint(1, 28):02}{draw.randint(0, 999):03}"
        )
        right = [last for last in "0123456789X" if is_cn_id(person + last)]
        total = sum(weight * int(digit) for weight, digit in zip(CN_WEIGHTS, person, strict=True))
        assert [(12 - total % 11) % 11] == ["0123456789X".index(one) for one in right]
    assert is_card("5555555555554444")
    assert not is_card("0000000000000000")
    # The examples of the standards and of the issuers' own pages.
    assert all(map(is_iban, ("NL91ABNA0417164300", "FR1420041010050500013M02606", "NO9386011117947")))
    assert [n for n in range(2, 99) if is_iban(f"GB{n:02}WEST12345698765432")] == [82]
    assert is_ssn("219-09-9999")
    assert not is_ssn("219-00-9999")


HOSTILE = [
    "a" * 60_000, "1" * 60_000, "1-" * 30_000, "a@" * 30_000, "a.b@a.a." * 8_000, "+1 " * 20_000, "(" * 60_000, ":" * 60_000,
    "-----BEGIN PRIVATE KEY-----" * 2_500, "GB82 " * 12_000, "password:" * 7_000, "1 2" * 20_000, "eyJaaaaaaaa." * 5_000,
    "a://" * 15_000, "12.12." * 10_000, "sk-" * 20_000, "0 " * 30_000, "tel 1" * 12_000, "(0" * 30_000, "密码" * 30_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_texts_end(text: str) -> None:
    """With an unbounded expression each of these takes minutes; the suite would not end."""
    find_pii(text)


def test_keys_of_all_lengths_are_found_whole() -> None:
    draw = random.Random(1)
    for _ in range(50):
        key = "ghp_" + "".join(draw.choices(string.ascii_letters + string.digits, k=36))
        text = f"token {key}."
        assert [text[span.start : span.end] for span in find_pii(text)] == [key]
