"""Keys that contradict each other, or say what nothing would follow from. What is told is done or refused, never ignored."""

from dataclasses import fields

from myna.records import DataError
from myna.train.config import Config, Lora

# What an adapter that training goes on from says itself.
ITS_OWN = ("rank", "alpha", "kind", "targets")


def check(config: Config) -> None:
    """Raises DataError naming the key that could not be honoured, and what to do."""
    check_lora(config.lora)
    if config.lora.adapts and not config.model.start:
        raise DataError(
            "lora: an adapter is trained beside a model that there is: give --model.start, or no --lora.rank"
        )
    if config.model.start:
        _check_started(config)
    run, data = config.run, config.data
    if run.evaluate and not data.eval and not run.prompts:
        raise DataError(
            "run.evaluate: there is nothing to evaluate. Give --data.eval FILES, or --run.prompts FILE to read"
        )
    if run.patience and not (data.eval and run.evaluate):
        raise DataError(
            "run.patience: waits for evaluations to get no better. Give --data.eval FILES and --run.evaluate 50"
        )
    if config.model.compile and config.model.recompute:
        raise DataError(
            "model.compile: torch translates no layer that is computed again. Leave out model.recompute or it"
        )
    if run.send != "float32" and config.model.precision != run.send:
        raise DataError("--run.send bfloat16 rounds what is computed with: give --model.precision bfloat16 too")
    if not run.steps and not run.epochs:
        raise DataError("how long? Give --run.steps or --run.epochs; both are 0")


def check_lora(lora: Lora) -> None:
    """DataError for keys of an adapter where there is none, or where it has its own."""
    usual = Lora()
    told = [f.name for f in fields(Lora) if getattr(lora, f.name) != getattr(usual, f.name)]
    if told and not lora.adapts:
        raise DataError(
            f"lora.{told[0]}: nothing is adapted, all weights would be trained. Give --lora.rank 8, or leave it out"
        )
    if own := [name for name in told if name in ITS_OWN and lora.start]:
        raise DataError(f"lora.{own[0]}: lora.start goes on from an adapter, which has its own; leave it out")


def _check_started(config: Config) -> None:
    """What a model that is there has of its own."""
    model = config.model
    for key in ("tokenizer", "experts"):
        if value := getattr(model, key):
            raise DataError(
                f"model.{key}: {value} is for a new model (--model.depth), and {model.start} has its own. Leave it out"
            )
