"""myna bench: how fast a model runs here, beside what the machine allows."""

import sys
from typing import TYPE_CHECKING

import orjson
from rich.console import Console

from myna.commands.options import LoadingFlags
from myna.modeldir import DEFAULT, ModelDir, find
from myna.provider.local import Loading, recommended
from myna.records import MynaError

if TYPE_CHECKING:
    from myna.engine.measure import Speed


def run(model: str = DEFAULT, /, *, long: int = 0, json: bool = False, loading: LoadingFlags = Loading()) -> None:
    """Prefill, decode and whole requests at several batch sizes, beside the memory's read bandwidth.

    A decode step cannot be faster than reading every weight once, so its share of the bandwidth says how much is left
    to gain. "host" is the part of a step that is not the forward pass. No request shares a prefix with another, and
    nothing is guessed. Medians; close other programs for figures worth keeping.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    long
        Also a prompt of this many tokens, and decoding after it.
    json
        Print one JSON object a line.
    """
    from myna.engine.engine import engine_for
    from myna.engine.measure import BATCHES, fits, measure
    from myna.engine.runner import runner_for
    from myna.kernels.build import level, threads
    from myna.model import load_model

    if loading.draft:
        raise MynaError("myna bench times steps that guess nothing, so --draft has nothing to do here. Leave it out.")
    screen = Console(stderr=json, highlight=False)
    directory = ModelDir.open(find(model))
    decoder = load_model(directory, loading.precision, loading.max_len, loading.kv)
    engine = engine_for(
        decoder,
        kv_tokens=loading.kv_tokens(decoder.kv_bytes_per_token),
        max_running=loading.max_running,
        prefix_cache=False,
        runner=runner_for(loading.precision),
    )
    screen.print(f"{model} as {decoder.precision}, kernels: {level()}, {threads()} threads\n")
    if left_out := [str(batch) for batch in BATCHES if not fits(engine, batch)]:
        screen.print(
            f"No room for {' or '.join(left_out)} requests at once; a larger --kv-gb or --max-running has it.\n"
        )
    for speed in measure(engine, decoder, recommended(directory), long=long):
        screen.print(_line(speed), soft_wrap=True)
        if json:
            sys.stdout.buffer.write(orjson.dumps(speed, option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.buffer.flush()


def _line(speed: "Speed") -> str:
    words = f"{speed.what:<14} {speed.context:>5} x {speed.batch:<2} {speed.tokens_per_second:>8.1f} tokens/s"
    if speed.decoding:
        words += f", {speed.decoding:.1f} while all decode"
    if speed.bytes_per_token:
        words += f", {speed.bytes_per_token / 1e6:.1f} MB read a token, {speed.bandwidth_share:.0%} of {speed.bandwidth / 1e9:.1f} GB/s"
    return words + (f", host {speed.host_share:.1%}" if speed.host_share else "")
