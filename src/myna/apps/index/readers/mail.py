"""E-mail (.eml, .mht; RFC 5322 and MIME): the head and the words of the letter, then every attachment that has a reader, as pages.

Of the alternatives of one text the plain one is taken. Attackers put into one what a person sees in the other does not show, so
words that only the unseen alternative has are hidden text.
"""

import email
import email.policy
import re
from email.message import EmailMessage

from myna.apps.index import readers
from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft, Unreadable
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers.html import write_html

DEEP = 3  # letters within letters
PARTS = 500  # attachments of one letter, with those of letters within
_HEADS = ("From", "To", "Cc", "Date", "Subject")


def read(data: bytes, name: str) -> Parsed:
    return read_mail(data, DEEP)


def read_mail(data: bytes, deep: int) -> Parsed:
    """The letter; `deep`: how many letters within letters are still read."""
    message = email.message_from_bytes(data, policy=email.policy.default.clone(raise_on_defect=False))
    draft = Draft("mail")
    draft.page("message")
    draft.title = _header(message, "Subject")
    draft.dated(_header(message, "Date"))
    heads = [f"{head}: {value}" for head in _HEADS if (value := _header(message, head))]
    if not heads and not message.is_multipart():
        raise Unreadable("it is no e-mail: it has none of the usual headers")
    draft.add("\n".join(heads))
    attachments: list[EmailMessage] = []
    _write_body(draft, message, attachments)
    for count, part in enumerate(attachments, 1):
        if count > PARTS:
            draft.note(f"{len(attachments) - PARTS} attachments beyond the first {PARTS} were not read")
            break
        _attach(draft, part, f"attachment {count}", deep)
    return draft.done()


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except Exception:  # the header parser has its bugs; a header is not worth the letter
        return ""


def _write_body(draft: Draft, part: EmailMessage, attachments: list[EmailMessage]) -> None:
    kind = part.get_content_type()
    if kind == "multipart/alternative":
        _write_alternative(draft, _parts(part), attachments)
    elif part.is_multipart() and kind != "message/rfc822":
        for inner in _parts(part):
            _write_body(draft, inner, attachments)
    elif part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
        attachments.append(part)
    elif kind == "text/html":
        write_html(draft, _words(part))
    else:
        draft.add(_words(part))


def _write_alternative(draft: Draft, parts: list[EmailMessage], attachments: list[EmailMessage]) -> None:
    plain = [part for part in parts if part.get_content_type() == "text/plain" and _words(part).strip()]
    rich = [part for part in parts if part.get_content_type() == "text/html"]
    for part in parts:
        if part not in plain and (part not in rich or not plain):
            _write_body(draft, part, attachments)
    for part in plain:
        draft.add(_words(part))
    if plain and rich:
        other = Draft("html")
        write_html(other, _words(rich[0]))
        said = set(re.findall(r"\w+", " ".join(map(_words, plain)).casefold()))
        new = [
            line for line in other.done().text.split("\n") if set(re.findall(r"[^\W\d_]{2,}", line.casefold())) - said
        ]
        draft.hide("\n".join(new), "only in the HTML alternative")


def _parts(part: EmailMessage) -> list[EmailMessage]:
    return [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)]


def _words(part: EmailMessage) -> str:
    data = _bytes(part)
    return decode(data, part.get_content_charset() or "").text


def _bytes(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _attach(draft: Draft, part: EmailMessage, fallback: str, deep: int) -> None:
    """An attachment as pages, or a note why not."""
    name = " ".join((part.get_filename() or "").split()) or fallback
    try:
        if part.get_content_type() == "message/rfc822":
            inner = _parts(part)
            data = inner[0].as_bytes() if inner else b""
            parsed = _letter(data, deep)
        else:
            data = _bytes(part)
            parsed = _letter(data, deep) if readers.reader_for(data, name) == "mail" else readers.read(data, name)
    except Unreadable as problem:
        draft.note(f"attachment {name!r} was not read: {problem}")
        return
    except Exception as problem:
        draft.note(f"attachment {name!r} was not read: {type(problem).__name__}: {problem}")
        return
    draft.include(parsed, name)


def _letter(data: bytes, deep: int) -> Parsed:
    if deep <= 0:
        raise Unreadable("a letter within a letter within a letter, too deep")
    return read_mail(data, deep - 1)
