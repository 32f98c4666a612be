"""What names a person or opens a door: e-mail addresses, telephone numbers, identity and bank numbers, network addresses, keys.

Numbers with a checksum are found only where it holds. Names, street addresses and anything else that only its meaning gives away are
not found: that takes a model, and no list of ours pretends to.

    masked = mask("Write to wang@example.com")              # "Write to <EMAIL_1>"
    unmask(answer, masked.values)                           # who keeps `values` gets the originals back

Every expression is bounded, so the time grows with the text alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from myna.checks.check import Check, Span, Verdict
from myna.checks.folded import Folded, fold
from myna.checks.pii_numbers import is_card, is_cn_id, is_iban, is_international, is_ip, is_national, is_ssn
from myna.records import Candidate, Conversation, DataError

Kind = Literal["secret", "email", "iban", "cn_id", "credit_card", "ip", "mac", "us_ssn", "passport", "plate", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # where two overlap, the earlier holds
PLACEHOLDER = re.compile(r"<([A-Z_]{1,20})_(\d{1,9})>")
NO_WORD = r"(?<![A-Za-z0-9])"
END = r"(?![A-Za-z0-9])"
ESCAPED = re.compile(r"\\[nrt]")  # of JSON and logs: a line end, and no letter before a number
ROUNDS = 8  # of mending
NEAR, AFTER = 40, 12  # characters before and after a number in which a word may say what it is

# Prefixes as their issuers document them; then what is called a password or a key and looks like one.
KEYS = (
    r"sk-[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|xox[abeoprs]-[A-Za-z0-9-]{10,250}|hf_[A-Za-z0-9]{30,64}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,128}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,255}|LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{13,40}"
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,1000}"
)
CALLED = (
    r"(?i:password|passwd|pwd|api[_ -]?key|secret[_ -]?key|access[_ -]?key|access[_ -]?token|auth[_ -]?token|client[_ -]?secret|private[_ -]?key"
    r"|密码|口令|密钥|秘钥|令牌)[\"']?\s{0,3}(?:[:=：]|是|为|is)\s{0,3}[\"']?(?P<value>[^\s\"'，。；,;<>]{6,200})"
)
PRIVATE = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s:,.]|-(?!-)){0,20000}-----END [A-Z ]{0,30}PRIVATE KEY-----"
LOGIN = r"[a-z][a-z0-9+.-]{1,15}://[^\s/:@]{1,64}:(?P<login>[^\s/@<>]{1,128})@"

FREE = r"(?<![A-Za-z0-9_])(?<![A-Za-z0-9][-./])"
EXTENSION = r"(?:\s?(?:x|ext\.?|转)\s?\d{1,6})?(?![A-Za-z0-9_]|[-./]\d)"
CALL = r"phone|\btel\b|\bcall\b|mobile|\bcell\b|\bfax\b|\bdesk\b|\boffice\b|whatsapp|answering|messages? (?:to|on)|电话|手机|联系方式|传真|致电|拨打|热线"


def _called_otherwise(word: str) -> bool:
    """A placeholder in prose is no secret: "password: required"."""
    return word.isalpha() and word.islower() and word.isascii()


@dataclass(frozen=True, slots=True)
class _Rule:
    """An expression; what must hold of what it finds; a word that must stand before it."""

    kind: Kind
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = lambda text: True
    near: re.Pattern[str] | None = None


def _rule(kind: Kind, pattern: str, holds: Callable[[str], bool] = lambda text: True, near: str | None = None) -> _Rule:
    return _Rule(kind, re.compile(pattern), holds, None if near is None else re.compile(near, re.IGNORECASE))


RULES = (
    _rule("secret", PRIVATE),
    _rule("secret", f"{NO_WORD}(?:{KEYS}){END}"),
    _rule("secret", CALLED, lambda text: not _called_otherwise(text)),
    _rule("secret", LOGIN),
    _rule("email", r"[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"),
    _rule("iban", rf"{NO_WORD}[A-Z]{{2}}\d{{2}}(?:[ -]?[A-Z0-9]{{1,4}}){{3,8}}{END}", is_iban),
    _rule("iban", rf"{NO_WORD}[A-Z]{{2}}\d{{2}}[A-Z0-9]{{11,30}}{END}", is_iban),
    _rule("cn_id", rf"{NO_WORD}\d{{17}}[\dXx]{END}", is_cn_id),
    _rule("cn_id", rf"{NO_WORD}\d{{15}}{END}", is_cn_id, near=r"身份证|identity|\bID\b"),
    _rule("credit_card", rf"{NO_WORD}\d{{13,19}}{END}|{NO_WORD}\d{{4}}(?:[ -]\d{{4}}){{2,3}}(?:[ -]\d{{1,4}})?{END}|{NO_WORD}\d{{4}}[ -]\d{{6}}[ -]\d{{4,5}}{END}", is_card),
    _rule("ip", r"(?<![A-Za-z0-9:.])(?:[0-9A-Fa-f:]{1,29}:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f:]{2,39})(?![A-Za-z0-9:]|\.\d)", is_ip),
    _rule("ip", r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)", is_ip),
    _rule("mac", r"(?<![A-Za-z0-9:-])[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})(?![A-Za-z0-9:-])"),
    _rule("us_ssn", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", is_ssn),
    _rule("us_ssn", rf"{NO_WORD}\d{{3}} ?\d{{2}} ?\d{{4}}{END}", is_ssn, near=r"\bssn\b|social security"),
    _rule("passport", rf"{NO_WORD}(?:[A-Z]{{1,2}}\d{{6,9}}|[A-Z]\d[A-Z0-9]{{6,7}}|\d{{9}}){END}", near=r"passport|护照"),
    _rule("plate", r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][ ·]?(?:[A-HJ-NP-Z0-9]{5}|[DF][A-HJ-NP-Z0-9]\d{4}|\d{5}[DF])(?![A-Z0-9])"),
    _rule("phone", rf"(?<![\w.+-])(?:\+|00)[1-9][\d() ./-]{{5,20}}\d{EXTENSION}", is_international),
    _rule("phone", FREE + r"1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?![A-Za-z0-9_]|[-./]\d)"),
    _rule("phone", FREE + r"\(?0(?:10|2\d|[3-9]\d{2})\)?[- ]?[2-8]\d{2,3}[- ]?\d{4}" + EXTENSION),
    _rule("phone", FREE + r"[48]00-?(?:\d{3}-?\d{4}|\d{4}-?\d{3})(?![A-Za-z0-9_]|[-./]\d)"),
    _rule("phone", FREE + r"(?:1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. /])\d{3}[-. ]?\d{4}" + EXTENSION),
    _rule("phone", FREE + r"(?:\(0\d{1,5}\)|\(0\)\d{2,5}|0\d{1,5})(?:[-. /]{1,2}\d{2,8}){1,4}" + EXTENSION, is_national),
    _rule("phone", FREE + r"\(?\d[\d() ./-]{5,18}\d" + EXTENSION, is_national, near=CALL),
)  # fmt: skip


def find_pii(text: str, kinds: Sequence[Kind] = KINDS) -> list[Span]:
    """What is found, in order, none overlapping. Labels are the kinds."""
    wide = fold(ESCAPED.sub("  ", text), _narrow)
    taken: list[Span] = []
    for rule in sorted((rule for rule in RULES if rule.kind in kinds), key=lambda rule: KINDS.index(rule.kind)):
        taken += _free([*_found(rule, wide)], taken)
    return sorted(taken, key=lambda span: span.start)


def _found(rule: _Rule, text: Folded) -> Iterator[Span]:
    for match in rule.pattern.finditer(text.text):
        start, end = match.span(match.lastgroup) if match.lastgroup else match.span()
        said = text.text[start:end]
        if not rule.holds(said):
            continue
        if rule.near and not rule.near.search(text.text, max(start - NEAR, 0), end + AFTER):
            continue
        yield Span(*text.span(start, end), rule.kind)


def _free(found: list[Span], taken: list[Span]) -> list[Span]:
    """Those that overlap nothing that is taken; a merge of two ordered lists, since a text may hold very many."""
    marked = sorted(taken, key=lambda span: span.start)
    free: list[Span] = []
    place = 0
    for span in found:
        while place < len(marked) and marked[place].end <= span.start:
            place += 1
        if place == len(marked) or marked[place].start >= span.end:
            free.append(span)
    return free


@dataclass(frozen=True, slots=True)
class Masked:
    """A text without what was found in it; `values` says what each placeholder stands for."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)


def mask(text: str, known: Mapping[str, str] = {}, kinds: Sequence[Kind] = KINDS) -> Masked:
    """What is found is replaced by <EMAIL_1> and the like: the same text by the same placeholder, also that of earlier texts, whose
    `values` come as `known`; those of this one hold them, too. No placeholder is used that stands in the text already."""
    values = dict(known)
    numbers = {original: placeholder for placeholder, original in known.items()}
    latest: dict[str, int] = {}
    for name, number in PLACEHOLDER.findall("".join([*known, text])):
        latest[name] = max(latest.get(name, 0), int(number))
    pieces, end = list[str](), 0
    for span in find_pii(text, kinds):
        original = text[span.start : span.end]
        if original not in numbers:
            name = span.label.upper()
            latest[name] = latest.get(name, 0) + 1
            numbers[original] = f"<{name}_{latest[name]}>"
            values[numbers[original]] = original
        pieces += [text[end : span.start], numbers[original]]
        end = span.end
    return Masked("".join([*pieces, text[end:]]), values)


def unmask(text: str, values: Mapping[str, str]) -> str:
    """With the originals in their places; a placeholder that nobody knows stays."""
    return PLACEHOLDER.sub(lambda found: values.get(found[0], found[0]), text)


@dataclass(frozen=True, slots=True)
class Pii:
    """See `pii`."""

    kinds: tuple[Kind, ...]
    allow: frozenset[str]

    def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
        text = candidate.text
        found = [span for span in find_pii(text, self.kinds) if text[span.start : span.end] not in self.allow]
        counts = {label: sum(span.label == label for span in found) for label in dict.fromkeys(s.label for s in found)}
        return Verdict.of(not found, ", ".join(f"{n} {label}" for label, n in counts.items()), tuple(found))

    def mend(self, text: str) -> str:
        """With placeholders, which nobody can turn back. What only now stands apart from its neighbours goes, too."""
        for _ in range(ROUNDS):
            masked = mask(text, kinds=self.kinds)
            mended = unmask(masked.text, {name: value for name, value in masked.values.items() if value in self.allow})
            if mended == text:
                break
            text = mended
        return text


def pii(*, kinds: Sequence[Kind] = KINDS, allow: Sequence[str] = ()) -> Check:
    """Nothing of these kinds is in the answer, but what `allow` lists (our own address, for one). The reason says how many of which
    kind, and never what."""
    if not kinds or isinstance(allow, str):
        raise DataError("pii: kinds and allow are lists, and kinds is not empty")
    return Pii(tuple(kinds), frozenset(allow))


_ODD = {0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2013: "-", 0x2014: "-", 0x2212: "-", 0xA0: " ", 0x3000: " ", 0x200B: "", 0x200C: "", 0x200D: "", 0x2060: "", 0xFEFF: ""}  # fmt: skip


def _narrow(character: str) -> str:
    """Full-width forms as ASCII, every dash as -, no zero-width characters; one character for one or none."""
    code = ord(character)
    if code < 128:
        return character
    if 0xFF01 <= code <= 0xFF5E:
        return chr(code - 0xFEE0)
    return _ODD.get(code, character)
