"""Recorded calls as conversations: rows to train on, or to look at."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from myna.records import Candidate, Conversation, Message, Usage
from myna.trace.read import Node, Said
from myna.trace.request import read_reply, read_request
from myna.trace.store import Store


def conversations(store: Store, runs: list[Node], *, everything: bool = False) -> Iterator[Conversation]:
    """A row for each finished chat call: what was asked, and as its last message the answer: an edited one, else the chosen
    candidate, else the first. Only calls whose feedback, or that of a span above them, came with consent, and no answer that a thumb
    there turned down, unless somebody said a better one; `everything`: all.

    `meta` says where a row comes from (run, span, model, prompt version) and what a thumb said.
    """
    for node in _calls(runs, everything):
        bad = _said(node).get("thumb") == -1 and not {"edit", "choice"} & _said(node).keys()
        if (row := _asked(store, node)) and (everything or not bad):
            candidates, best = _candidates(store, node)
            yield row + replace(candidates[best].messages[-1], tokens=candidates[best].tokens)


def pairs(store: Store, runs: list[Node], *, everything: bool = False) -> Iterator[Conversation]:
    """The same of calls whose answer was edited or chosen: what was asked, and candidates of which the better has the score 1 and
    each other 0."""
    for node in _calls(runs, everything):
        if row := _asked(store, node):
            candidates, best = _candidates(store, node)
            if len(candidates) > 1 and {"edit", "choice"} & _said(node).keys():
                yield replace(
                    row, candidates=tuple(replace(c, score=float(k == best)) for k, c in enumerate(candidates))
                )


def held_out(run: int, share: float) -> bool:
    """Whether the rows of a run are for evaluation: all of them or none, and the same whenever it is exported. Of all runs, `share` are."""
    digest = hashlib.blake2b(f"run {run}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def _calls(runs: list[Node], agreed: bool, thumb: Said | None = None) -> Iterator[Node]:
    """The calls of which a row may be made, each with the thumb of the span above it where it has none of its own."""
    for node in runs:
        here = agreed or any(said.consent for said in node.feedback)
        own = next((said for said in reversed(node.feedback) if said.kind == "thumb" and said.consent), None)
        if here and node.call and node.call.reply and node.outcome == "ok":
            yield node if own or not thumb else replace(node, feedback=[*node.feedback, thumb])
        yield from _calls(node.below, here, own or thumb)


def _asked(store: Store, node: Node) -> Conversation | None:
    """None for a document that was continued: that is no conversation."""
    assert node.call
    what, _ = read_request(store, node.call.request)
    told = {
        "run": node.run,
        "span": node.id,
        "model": node.call.model,
        "prompt": node.call.prompt,
        "thumb": _said(node).get("thumb"),
    }
    meta = {name: value for name, value in told.items() if value is not None}
    return replace(what, meta=meta, continues=False) if isinstance(what, Conversation) else None


def _candidates(store: Store, node: Node) -> tuple[list[Candidate], int]:
    """The answers, an edited one last, and the number of the best."""
    assert node.call
    assert node.call.reply
    said = _said(node)
    found = [*read_reply(store, node.call.reply, node.call.usage or Usage()).candidates]
    if "edit" in said:
        return [*found, Candidate((Message("assistant", str(said["edit"])),), meta={"edited": True})], len(found)
    chosen = said.get("choice", 0)
    return found, chosen if isinstance(chosen, int) and chosen < len(found) else 0


def _said(node: Node) -> dict[str, object]:
    """What was said of it with consent, the latest of each kind."""
    return {one.kind: one.value for one in node.feedback if one.consent}
