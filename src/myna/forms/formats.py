"""Formats of strings that are enforced, as llguidance knows them or as an expression of ours where it lets too much through.

A format is an assertion here. JSON Schema leaves that open, and whoever asks for a date wants one.
"""

from typing import NamedTuple


class Format(NamedTuple):
    """native: llguidance's own; patterns: expressions that hold beside it, all of them. At least one."""

    native: str | None = None
    patterns: tuple[str, ...] = ()


_YEAR = "[0-9]{4}"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|{_YEAR}-(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|{_YEAR}-02-(0[1-9]|1[0-9]|2[0-8])|{_LEAP}-02-29)"
)
_HOUR, _MINUTE, _FRACTION = "([01][0-9]|2[0-3])", "[0-5][0-9]", r"(\.[0-9]+)?"
_PLAIN = f"{_HOUR}:{_MINUTE}:[0-5][0-9]{_FRACTION}([zZ]|[+-]{_HOUR}:{_MINUTE})"


def _leap_seconds() -> tuple[str, str]:
    """Times of a leap second, which is the last of a day in UTC, wherever it is told: what their minutes are, and what their
    hours are. Apart, because a pattern for each pair of both would be a thousand."""
    minutes = [rf"{_HOUR}:59:60{_FRACTION}([zZ]|[+-]{_HOUR}:00)"]
    hours = [rf"23:59:60{_FRACTION}[zZ]"]
    for k in range(1, 60):
        minutes += [
            rf"{_HOUR}:{(59 + sign * k) % 60:02}:60{_FRACTION}[{'+-'[sign < 0]}]{_HOUR}:{k:02}" for sign in (1, -1)
        ]
    for k in range(24):
        same, later = (23 + k) % 24, (24 + k) % 24
        hours.append(
            rf"{same:02}:59:60{_FRACTION}[+]{k:02}:00|{later:02}:([0-4][0-9]|5[0-8]):60{_FRACTION}[+]{k:02}:{_MINUTE}"
        )
        hours.append(rf"{23 - k:02}:{_MINUTE}:60{_FRACTION}-{k:02}:{_MINUTE}")
    return "|".join(minutes), "|".join(hours)


def _times(before: str = "") -> tuple[str, ...]:
    return tuple(f"^{before}({_PLAIN}|{leap})$" for leap in _leap_seconds())


_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"


def _ipv6() -> str:
    """RFC 3986's IPv6address."""
    word = "[0-9A-Fa-f]{1,4}"
    end = f"({word}:{word}|{_IPV4})"
    options = [f"({word}:){{6}}{end}"]
    for before in range(8):
        left = f"(({word}:){{0,{before - 1}}}{word})?" if before else ""
        right = f"({word}:){{{5 - before}}}{end}" if before < 5 else {5: end, 6: word, 7: ""}[before]
        options.append(f"{left}::{right}")
    return f"({'|'.join(options)})"


def _email() -> tuple[str, str]:
    """RFC 5321's Mailbox, and the most characters that its local part may have."""
    text, label = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    quoted = r'"([ !#-\[\]-~]|\\[ -~])*"'
    domain = rf"({label}(\.{label})*|\[({_IPV4}|IPv6:{_ipv6()})\])"
    return rf"^({text}(\.{text})*|{quoted})@{domain}$", r"^[ -~]{1,64}@[^@]{1,253}$"


def _reference(more: str = "", private: str = "", *, relative: bool = True) -> str:
    """RFC 3986's URI-reference; with `more` characters wherever unreserved ones may stand, and `private` ones in queries, RFC
    3987's IRI-reference."""
    free, escape, marks = "A-Za-z0-9._~" + more, "%[0-9A-Fa-f]{2}", "!$&'()*+,;="
    char, no_colon = f"([{free}{marks}:@-]|{escape})", f"([{free}{marks}@-]|{escape})"
    host = rf"(\[({_ipv6()}|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~{marks}:-]+)\]|([{free}{marks}-]|{escape})*)"
    authority = f"(([{free}{marks}:-]|{escape})*@)?{host}(:[0-9]*)?"
    rest = f"(/{char}*)*"
    path = f"(//{authority}{rest}|/({char}+{rest})?|FIRST+{rest}|)"
    ends = rf"(\?({char}|[/?{private}])*)?(#({char}|[/?])*)?"
    whole = rf"[A-Za-z][A-Za-z0-9+.-]*:{path.replace('FIRST', char)}{ends}"
    return rf"^({whole}|{path.replace('FIRST', no_colon)}{ends})$" if relative else f"^{whole}$"


def _template() -> str:
    """RFC 6570's URI-Template."""
    literal = r"([!#$&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]|%[0-9A-Fa-f]{2}|" + f"[{_UCS}{_PRIVATE}])"
    char = "([A-Za-z0-9_]|%[0-9A-Fa-f]{2})"
    name = rf"{char}(\.?{char})*(:[1-9][0-9]{{0,3}}|\*)?"
    return rf"^({literal}|\{{[+#./;?&=,!@|]?{name}(,{name})*\}})*$"


_UCS = "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef" + "".join(
    f"{chr(0x10000 * plane + (0x1000 if plane == 14 else 0))}-{chr(0x10000 * plane + 0xFFFD)}" for plane in range(1, 15)
)
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"

FORMATS = {
    "date": Format(patterns=(f"^{_DATE}$",)),
    "time": Format(patterns=_times()),
    "date-time": Format(patterns=_times(f"{_DATE}[tT]")),
    "duration": Format("duration"),
    "email": Format(patterns=_email()),
    "ipv4": Format("ipv4"),
    "ipv6": Format(patterns=(f"^{_ipv6()}$",)),
    "uuid": Format("uuid"),
    "uri": Format("uri"),
    "uri-reference": Format(patterns=(_reference(),)),
    "iri": Format(patterns=(_reference(_UCS, _PRIVATE, relative=False),)),
    "iri-reference": Format(patterns=(_reference(_UCS, _PRIVATE),)),
    "uri-template": Format(patterns=(_template(),)),
    "json-pointer": Format(patterns=(r"^(/([^/~]|~[01])*)*$",)),
    "relative-json-pointer": Format(patterns=(r"^(0|[1-9][0-9]*)(#|(/([^/~]|~[01])*)*)$",)),
}

# Known, and no regular expression that we have. All other names mean nothing, as JSON Schema has it.
NOT_ENFORCED = frozenset({"hostname", "idn-hostname", "idn-email", "regex"})
