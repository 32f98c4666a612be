"""A finished answer is looked at once more, by somebody else than the grammar it was made by. No torch."""

import logging
from collections import defaultdict
from dataclasses import replace

from myna.forms import CheckFailed, Compiled
from myna.provider.threads import CHECKS, off_loop
from myna.records import Delta, ProviderError

log = logging.getLogger(__name__)


class Finished:
    """Follows one stream. An answer that was cut (max_tokens, a stop string) or that calls tools is not looked at.

    Where all of a form is enforced, an answer without it is a bug of ours, and an error. Where a form that is not strict left
    something open, or where it took too long to look, the answer stands, and its last delta says so in `flaw`.
    """

    def __init__(self, form: Compiled | None):
        self._form = form
        self._texts: defaultdict[int, list[str]] = defaultdict(list)
        self._called: set[int] = set()

    async def look(self, delta: Delta, *, cut: bool) -> Delta:
        """The delta, with what there is to say about the answer it ends. Raises ProviderError."""
        if self._form is None:
            return delta
        self._texts[delta.candidate].append(delta.text)
        if delta.tool_calls:
            self._called.add(delta.candidate)
        if delta.finish_reason != "stop" or cut or delta.candidate in self._called:
            return delta
        try:
            flaw = await off_loop(CHECKS, self._form.check, "".join(self._texts[delta.candidate]))
        except CheckFailed as e:
            log.warning("a finished answer was not checked: %s", e)
            return replace(delta, flaw=f"the answer was not checked against its form: {e}")
        if flaw and not self._form.left:
            log.error("a finished answer does not have the form that was enforced: %s", flaw)
            raise ProviderError("The finished answer does not have the form asked for; this is a bug.", status=500)
        return replace(delta, flaw=flaw) if flaw else delta
