"""Formats of strings that are enforced, as llguidance knows them or as an expression of ours where it lets too much through.

A format is an assertion here. JSON Schema leaves that open, and whoever asks for a date wants one.
"""

from typing import NamedTuple


class Format(NamedTuple):
    """native: llguidance's own; pattern: an expression that holds beside it. At least one of the two."""

    native: str | None = None
    pattern: str | None = None


_YEAR = "[0-9]{4}"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|{_YEAR}-(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|{_YEAR}-02-(0[1-9]|1[0-9]|2[0-8])|{_LEAP}-02-29)"
)
# A leap second is the last of a day in UTC; said with another offset it is one as well, but nobody writes it so.
_TIME = (
    r"(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
    r"|23:59:60(\.[0-9]+)?([zZ]|[+-]00:00))"
)


def _ipv6() -> str:
    """RFC 3986's IPv6address."""
    byte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    word = "[0-9A-Fa-f]{1,4}"
    end = rf"({word}:{word}|{byte}(\.{byte}){{3}})"
    options = [f"({word}:){{6}}{end}"]
    for before in range(8):
        left = f"(({word}:){{0,{before - 1}}}{word})?" if before else ""
        right = f"({word}:){{{5 - before}}}{end}" if before < 5 else {5: end, 6: word, 7: ""}[before]
        options.append(f"{left}::{right}")
    return "|".join(options)


FORMATS = {
    "date": Format(pattern=f"^{_DATE}$"),
    "time": Format(pattern=f"^{_TIME}$"),
    "date-time": Format(pattern=f"^{_DATE}[tT]{_TIME}$"),
    "duration": Format("duration"),
    "email": Format("email"),
    "ipv4": Format("ipv4"),
    "ipv6": Format(pattern=f"^({_ipv6()})$"),
    "uuid": Format("uuid"),
    "uri": Format("uri"),
    "json-pointer": Format(pattern=r"^(/([^/~]|~[01])*)*$"),
    "relative-json-pointer": Format(pattern=r"^(0|[1-9][0-9]*)(#|(/([^/~]|~[01])*)*)$"),
}

# Known, and no regular expression that we have. All other names mean nothing, as JSON Schema has it.
NOT_ENFORCED = frozenset(
    {"hostname", "idn-hostname", "idn-email", "iri", "iri-reference", "uri-reference", "uri-template", "regex"}
)
