"""Filling in the middle: a prompt whose answer goes between a prefix and a suffix, in a model's own control tokens.

Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle"; the tokens are those of the
models' own pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Infill:
    """The control tokens' ids. The prompt is `before`, the prefix, `between`, the suffix, `after`; the model then writes the
    middle, which ends at one of `stops` too. `suffix_first`: the two texts change places."""

    before: int
    between: int
    after: int | None
    stops: frozenset[int]
    suffix_first: bool = False


# before, between, after; of models whose tokenizer has all of them.
LAYOUTS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder 1 and 2, Granite Code
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("<PRE>", "<SUF>", "<MID>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)
SUFFIX_FIRST = ("[SUFFIX]", "[PREFIX]")  # Codestral: the suffix, then the prefix, which the model goes on with
# Where a repository's next file would begin, or padding: the middle is over.
ENDS = (
    "<|fim_pad|>",
    "<|file_sep|>",
    "<|file_separator|>",
    "<|repo_name|>",
    "<file_sep>",
    "<fim_pad>",
    "<EOT>",
    "▁<EOT>",
)


def find_infill(special: Mapping[str, int]) -> Infill | None:
    """How a tokenizer with these control tokens fills in; None if it cannot."""
    ends = [special[name] for name in ENDS if name in special]
    for names in LAYOUTS:
        if all(name in special for name in names):
            before, between, after = (special[name] for name in names)
            return Infill(before, between, after, frozenset((*ends, before, between, after)))
    if all(name in special for name in SUFFIX_FIRST):
        before, between = (special[name] for name in SUFFIX_FIRST)
        return Infill(before, between, None, frozenset((*ends, before, between)), suffix_first=True)
    return None
