"""Which digits are somebody's number: checksums and formats as their standards give them. Every function takes the text as it stands."""

import ipaddress
import re
from datetime import date

# GB 2260: the first two digits of a Chinese identity number.
PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)
CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, ISO 7064 MOD 11-2
# Lengths of the SWIFT IBAN registry.
IBAN_LENGTHS = {
    name: int(size)
    for name, size in (
        pair.split(":")
        for pair in """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27 DK:18 DO:28
        EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30
        KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24
        PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22
        VG:24 XK:20 YE:30""".split()
    )
}
DATE = re.compile(
    r"(?:19|20)\d\d[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:0?[1-9]|[12]\d|3[01])|(?:0?[1-9]|[12]\d|3[01])[-/. ](?:0?[1-9]|[12]\d|3[01])[-/. ](?:19|20)\d\d"
)

SSN = re.compile(r"\d{3}-\d{2}-\d{4}")


def digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


def is_luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits(text)))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def is_card(text: str) -> bool:
    """13 to 19 digits that begin as payment cards do, and Luhn."""
    number = digits(text)
    starts = number[0] in "3456" or 2221 <= int(number[:4]) <= 2720 or number[:4] in ("1800", "2131")
    return 13 <= len(number) <= 19 and starts and len(set(number)) > 1 and is_luhn(number)


def is_cn_id(text: str) -> bool:
    """18 characters with their check character, or the 15 digits of before 1999, which have none."""
    if text[:2] not in PROVINCES:
        return False
    born = text[6:14] if len(text) == 18 else "19" + text[6:12]
    if not _is_day(born) or not 1850 <= int(born[:4]) <= 2100:
        return False
    if len(text) == 15:
        return True
    total = sum(weight * int(digit) for weight, digit in zip(CN_WEIGHTS, text, strict=False))
    return "10X98765432"[total % 11] == text[-1].upper()


def is_iban(text: str) -> bool:
    """ISO 13616: its country's length, and ISO 7064 MOD 97-10."""
    code = re.sub(r"[ -]", "", text).upper()
    if len(code) != IBAN_LENGTHS.get(code[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def is_ip(text: str) -> bool:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return found.version == 4 or any(c.isdigit() for c in text)  # C::D is one by its form, and C++ by its look


def is_ssn(text: str) -> bool:
    """Numbers that the US Social Security Administration gives out, or gave."""
    number = digits(text)
    return number[:3] not in ("000", "666") and number[0] != "9" and number[3:5] != "00" and number[5:] != "0000"


def is_international(text: str) -> bool:
    """8 to 15 digits with the country's code (E.164), after + or 00."""
    main = _main(text)
    return 8 <= len(digits(main)) - 2 * main.startswith("00") <= 15


def is_national(text: str) -> bool:
    """7 to 12 digits that are no date, nor grouped as US social security numbers are."""
    main = _main(text)
    return 7 <= len(digits(main)) <= 12 and not DATE.search(main) and not SSN.fullmatch(main)


def _main(text: str) -> str:
    return re.split(r"(?i)\s?(?:x|ext|转)", text)[0].strip()


def _is_day(text: str) -> bool:
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return False
    return True
