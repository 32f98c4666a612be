"""myna bench: how fast a model runs here, beside what the machine allows."""

import sys

import orjson
from rich.console import Console

from myna.commands.options import LoadingFlags
from myna.modeldir import DEFAULT, ModelDir, find
from myna.provider.local import Loading


def run(model: str = DEFAULT, /, *, json: bool = False, loading: LoadingFlags = Loading()) -> None:
    """Prefill of 512 tokens, then decode at batch 1, 8 and 32 after 128 tokens, beside the memory's read bandwidth.

    A decode step cannot be faster than reading every weight once, so its share of the bandwidth says how much is left
    to gain. Medians; close other programs for figures worth keeping.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    json
        Print one JSON object a line.
    """
    from myna.engine.engine import engine_for
    from myna.engine.measure import measure, read_bandwidth
    from myna.kernels.build import level, threads
    from myna.model import load_model

    screen = Console(stderr=json, highlight=False)
    decoder = load_model(ModelDir.open(find(model)), loading.precision, loading.max_len)
    kv_tokens = int(loading.kv_gb * 2**30 / decoder.kv_bytes_per_token)
    engine = engine_for(decoder, kv_tokens=kv_tokens, max_running=loading.max_running, prefix_cache=False)
    bandwidth = read_bandwidth()
    screen.print(f"{model} as {decoder.precision}, kernels: {level()}, {threads()} threads")
    screen.print(f"reads of memory reach {bandwidth / 1e9:.1f} GB/s here\n")
    for speed in measure(engine, decoder, bandwidth):
        line = f"{speed.what} batch {speed.batch:>2}  {speed.tokens_per_second:>8.1f} tokens/s"
        if speed.bytes_per_step:
            per_token = speed.bytes_per_step / speed.batch / 1e6
            line += f"   {per_token:>8.1f} MB read a token, {speed.bandwidth_share:.0%} of the bandwidth"
        screen.print(line)
        if json:
            sys.stdout.buffer.write(orjson.dumps(speed, option=orjson.OPT_APPEND_NEWLINE))
