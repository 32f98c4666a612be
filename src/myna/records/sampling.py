"""How to sample. A field is None until somebody says something: request > flag > generation_config.json > DEFAULTS."""

import math
from dataclasses import dataclass, fields
from typing import Any

from myna.records.errors import RequestError
from myna.records.form import Form, ToolChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Applied in this order: logit_bias, repetition, presence, frequency penalty, temperature, top_k, top_p, min_p.

    Attributes
    ----------
    temperature
        0 is greedy: the highest logit, ties to the lowest id.
    top_k
        Keep the k likeliest tokens; 0 keeps all.
    top_p
        Keep the likeliest tokens until their probability reaches p (Holtzman et al. 2019).
    min_p
        Keep tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024).
    repetition_penalty
        Divide positive and multiply negative logits of tokens in prompt or answer (Keskar et al. 2019).
    presence_penalty
        Subtract once from every token already in the answer (OpenAI).
    frequency_penalty
        Subtract once per occurrence in the answer (OpenAI).
    logit_bias
        (token id, added to its logit).
    seed
        Same seed, same answer, whatever else the engine is doing. Unset draws one.
    stop
        Strings that end the answer and are not shown.
    max_tokens
        At most this many tokens; unset is as many as fit.
    logprobs
        k: report the chosen token's log-probability and the k likeliest alternatives', taken from the model's own
        distribution, before anything above is applied. Unset reports none.
    n
        How many candidates.
    ignore_eos
        Go on past the end-of-turn token (for benchmarks).
    form
        What the answer must look like. Applied before everything else: what would break the form cannot be chosen.
    tool_choice
        Which of the conversation's tools may be called; unset is auto.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    max_tokens: int | None = None
    logprobs: int | None = None
    n: int | None = None
    ignore_eos: bool | None = None
    form: Form | None = None
    tool_choice: ToolChoice | None = None

    def resolve(self, *layers: "Sampling") -> "Sampling":
        """Fill what is None from the first of `layers` that says something."""
        return Sampling(**{f.name: _first_set(f.name, (self, *layers)) for f in fields(self)})

    def check(self) -> "Sampling":
        """Itself, or RequestError naming the field and the allowed range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high):
                raise RequestError(f"{name} is {value}; it must be {_range(low, high)}.", param=name)
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise RequestError(
                "repetition_penalty is 0; it must be above 0 (1 changes nothing).", param="repetition_penalty"
            )
        for token, bias in self.logit_bias or ():
            if not -100 <= bias <= 100:
                raise RequestError(
                    f"logit_bias of token {token} is {bias}; it must be from -100 to 100.", param="logit_bias"
                )
        if self.stop is not None and any(not text for text in self.stop):
            raise RequestError("stop holds an empty string, which would end every answer at once.", param="stop")
        return self


# A wide temperature is allowed on purpose: tests and data synthesis use it. OpenAI stops at 2.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0, 100),
    ("top_k", 0, math.inf),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 0, 100),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("seed", -(2**63), 2**64 - 1),
    ("max_tokens", 1, math.inf),
    ("logprobs", 0, 20),
    ("n", 1, 128),
)

DEFAULTS = Sampling(
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    logit_bias=(),
    stop=(),
    n=1,
    ignore_eos=False,
)


def _first_set(name: str, layers: tuple[Sampling, ...]) -> Any:
    return next((value for layer in layers if (value := getattr(layer, name)) is not None), None)


def _range(low: float, high: float) -> str:
    return f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
