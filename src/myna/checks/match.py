"""Answers that can be compared with the conversation's `target`."""

import re
from decimal import Decimal, InvalidOperation

from myna.checks.check import Verdict
from myna.records import Candidate, Conversation, DataError

# 1,234.5 and -7 and .5; full-width digits are digits too. Bounded, so that no answer makes it slow.
_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,40})(?:\.\d{1,40})?|[-−]?\.\d{1,40}")


def exact(conversation: Conversation, candidate: Candidate) -> Verdict:
    """The answer is the target, but for white space around it."""
    said, wanted = candidate.text.strip(), str(_target(conversation)).strip()
    return Verdict.of(said == wanted, f"said {said[:80]!r}, wanted {wanted[:80]!r}")


def contains(conversation: Conversation, candidate: Candidate) -> Verdict:
    """The target is somewhere in the answer, in any case."""
    wanted = str(_target(conversation)).strip().casefold()
    return Verdict.of(wanted in candidate.text.casefold(), f"wanted {wanted[:80]!r} in it")


def number(conversation: Conversation, candidate: Candidate) -> Verdict:
    """The last number of the answer equals the last number of the target (GSM8K's end in "#### 42")."""
    said, wanted = _last_number(candidate.text), _last_number(str(_target(conversation)))
    if wanted is None:
        raise DataError(f"{conversation.id or 'a conversation'}: target {conversation.target!r} holds no number")
    return Verdict.of(said == wanted, f"said {said}, wanted {wanted}")


def _target(conversation: Conversation) -> object:
    if conversation.target is None:
        raise DataError(f"{conversation.id or 'a conversation'} has no target to compare an answer with")
    return conversation.target


def _last_number(text: str) -> Decimal | None:
    found = _NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
    except InvalidOperation:
        return None
