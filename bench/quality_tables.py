"""What bench/quality.py measured, as rows and as tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, median

import torch

from myna.engine.quality import Loss, joined

ALL = "all"


@dataclass(frozen=True)
class Measured:
    """losses: of each chunk of each text. answers: of each prompt, (tokens of the exact answer, tokens until the first
    other one, tokens that are the same at the same place)."""

    losses: dict[str, list[Loss]]
    answers: list[tuple[int, int, int]]

    @classmethod
    def of(
        cls, losses: list[Loss], chunks: dict[str, list[list[int]]], answers: list[list[int]], exact: list[list[int]]
    ) -> "Measured":
        left = iter(losses)
        by_text = {name: [next(left) for _ in each] for name, each in chunks.items()}
        by_text[ALL] = losses
        return cls(by_text, [_agreement(a, b) for a, b in zip(answers, exact, strict=True)])


def _agreement(answer: list[int], exact: list[int]) -> tuple[int, int, int]:
    same = [a == b for a, b in zip(answer, exact, strict=False)]
    return len(exact), same.index(False) if False in same else len(same), sum(same)


def rows(model: str, measured: dict[str, Measured], texts: list[str]) -> Iterator[dict[str, object]]:
    """One for every engine and text; `chunks` are the KL means of its chunks."""
    for name, found in measured.items():
        for text in [*texts, ALL]:
            yield {"model": model, "engine": name, "text": text, **_figures(found.losses[text])}
        yield {"model": model, "engine": name, "text": "greedy", **_greedy(found.answers)}


def _figures(losses: list[Loss]) -> dict[str, object]:
    whole = joined(losses)
    return {
        "tokens": len(whole.kl),
        "kl": float(whole.kl.mean()),
        "kl_error": _error([float(loss.kl.mean()) for loss in losses]),
        "kl_p99": float(whole.kl.quantile(0.99)),
        "kl_worst": float(whole.kl.max()),
        "ppl": float(whole.nll.mean().exp()),
        "ppl_ratio": float((whole.nll.mean() - whole.exact.mean()).exp()),
        "top1": float(whole.agrees.float().mean()),
        "chunks": [round(float(loss.kl.mean()), 7) for loss in losses],
    }


def _greedy(answers: list[tuple[int, int, int]]) -> dict[str, object]:
    return {
        "whole": mean(until == length for length, until, _ in answers),
        "until_first_difference": median(until for _, until, _ in answers),
        "same": sum(same for _, _, same in answers) / sum(length for length, _, _ in answers),
    }


def _error(means: list[float]) -> float:
    """Standard error of the mean of chunks."""
    return float(torch.tensor(means).std() / len(means) ** 0.5) if len(means) > 1 else float("nan")


def print_tables(model: str, measured: dict[str, Measured], texts: list[str], against: dict[str, str]) -> None:
    for text in [*texts, ALL]:
        _print_text(model, measured, text, against)
    print(f"\n{model}, greedy answers to {len(next(iter(measured.values())).answers)} prompts, beside float32's\n")
    print("| engine | the same to the end | first other token (median) | same tokens |\n|---|---|---|---|")
    for name, found in measured.items():
        g = _greedy(found.answers)
        print(f"| {name} | {g['whole']:.0%} | {g['until_first_difference']:g} | {g['same']:.0%} |")


def _print_text(model: str, measured: dict[str, Measured], text: str, against: dict[str, str]) -> None:
    sizes = {len(joined(found.losses[text]).kl) for found in measured.values()}
    exact = joined(next(iter(measured.values())).losses[text]).exact.mean().exp()
    print(f"\n{model}, {text}, {sizes.pop()} tokens; perplexity of float32 {exact:.3f}\n")
    print("| engine | KL (standard error) | 99th percentile | worst | perplexity | first choice | KL minus that of |")
    print("|---|---|---|---|---|---|---|")
    for name, found in measured.items():
        f = _figures(found.losses[text])
        other = against.get(name, "")
        difference = _difference(found, measured[other], text) + f" {other}" if other in measured else ""
        print(
            f"| {name} | {f['kl']:.5f} ({f['kl_error']:.5f}) | {f['kl_p99']:.4f} | {f['kl_worst']:.3f} "
            f"| {f['ppl']:.3f} ({f['ppl_ratio']:.4f}) | {f['top1']:.2%} | {difference} |"
        )


def _difference(one: Measured, other: Measured, text: str) -> str:
    """Of the same chunks, and its standard error."""
    pairs = zip(one.losses[text], other.losses[text], strict=True)
    means = [float((a.kl - b.kl).mean()) for a, b in pairs]
    return f"{mean(means):+.5f} ({_error(means):.5f})"
