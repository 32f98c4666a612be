"""llama.cpp timed as `myna bench` times Myna: one JSON object a line. Run by bench/cpu.py with a Python that has llama_cpp.

It calls llama_decode directly, so none of llama-cpp-python's own sampling or bookkeeping is counted.
"""

import ctypes
import json
import os
import sys
import time
from statistics import median

import llama_cpp as lc

PROMPT, CONTEXT, STEPS, BATCHES = 512, 128, 24, (1, 8, 32)
quiet = lc.llama_log_callback(lambda level, text, data: None)


def main(path: str) -> None:
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    params = lc.llama_context_default_params()
    params.n_ctx = max(BATCHES) * (CONTEXT + STEPS + 8)
    params.n_batch = params.n_ubatch = PROMPT
    params.n_threads = params.n_threads_batch = os.cpu_count()
    params.n_seq_max = max(BATCHES)
    params.kv_unified = True
    context = lc.llama_init_from_model(model, params)
    batch = lc.llama_batch_init(PROMPT, 0, 1)

    def decode(rows: list[tuple[int, int, int]], logits: bool) -> float:
        """One llama_decode of (token, position, sequence) rows; seconds."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, sequence
            batch.logits[i] = logits or i == len(rows) - 1
        started = time.perf_counter()
        if lc.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        lc.llama_synchronize(context)
        return time.perf_counter() - started

    def prefill(length: int, sequence: int) -> float:
        return decode([((7 * sequence + i) % (vocab - 1) + 1, i, sequence) for i in range(length)], False)

    def clear() -> None:
        lc.llama_memory_clear(lc.llama_get_memory(context), True)

    prefill(PROMPT, 0)  # warm up
    seconds = []
    for _ in range(3):
        clear()
        seconds.append(prefill(PROMPT, 0))
    report("prefill", 1, PROMPT / median(seconds))
    for size in BATCHES:
        clear()
        for sequence in range(size):
            prefill(CONTEXT, sequence)
        steps = [decode([(5, CONTEXT + i, s) for s in range(size)], True) for i in range(STEPS)]
        report("decode", size, size / median(steps))


def report(what: str, batch: int, rate: float) -> None:
    print(json.dumps({"what": what, "batch": batch, "tokens_per_second": rate}), flush=True)


main(sys.argv[1])
