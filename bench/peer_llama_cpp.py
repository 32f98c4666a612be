"""llama.cpp, timed as work.py says. Run by bench/cpu.py with a Python that has llama_cpp.

It calls llama_decode directly: no sampling and none of llama-cpp-python's bookkeeping is counted, and prompts of several
requests go in together.
"""

import ctypes
import os
import sys
import time

import llama_cpp as lc
from work import Work, arguments, prompt, single, together

QUIET = lc.llama_log_callback(lambda level, text, data: None)
BATCH = 512  # rows of one llama_decode; llama.cpp's own default for what is computed at once


class Context:
    """llama.cpp with room for `sequences` of `length` tokens."""

    def __init__(self, model: object, sequences: int, length: int):
        params = lc.llama_context_default_params()
        params.n_ctx = sequences * -(-length // 256) * 256
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        params.n_seq_max = sequences
        # A cache for each sequence: in a shared one every row meets every sequence's keys.
        params.kv_unified = False
        self.context = lc.llama_init_from_model(model, params)
        if not self.context:
            sys.exit(f"llama.cpp makes no context for {sequences} sequences of {length} tokens")
        self.batch = lc.llama_batch_init(BATCH, 0, 1)
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> float:
        """(token, position, sequence, are its logits wanted) rows; seconds of the calls alone."""
        spent = 0.0
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            self.batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            started = time.perf_counter()
            if lc.llama_decode(self.context, self.batch):
                sys.exit("llama_decode failed")
            lc.llama_synchronize(self.context)
            spent += time.perf_counter() - started
        return spent

    def prefill(self, length: int, sequences: int = 1) -> float:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)
        rows = []
        for sequence in range(sequences):
            ids = prompt(length, self.vocab)
            rows += [(token, i, sequence, i == length - 1) for i, token in enumerate(ids)]
        return self.decode(rows)

    def steps(self, context: int, count: int, sequences: int = 1) -> list[float]:
        tokens = prompt(count, self.vocab)
        return [self.decode([(t, context + i, s, True) for s in range(sequences)]) for i, t in enumerate(tokens)]

    def free(self) -> None:
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.context)


def main(path: str, work: Work) -> None:
    lc.llama_log_set(QUIET, ctypes.c_void_p(0))
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp does not load {path}")
    one = Context(model, 1, work.longest)

    def decode(context: int) -> list[float]:
        one.prefill(context)
        return one.steps(context, work.steps)

    single(work, one.prefill, decode)
    one.free()

    def answer_all(size: int) -> tuple[float, float, int]:
        many = Context(model, size, work.longest)
        many.prefill(16, size)  # warm up
        begun = many.prefill(work.context, size)  # yields the first token of each
        decoding = sum(many.steps(work.context, work.answer - 1, size))
        many.free()
        return begun + decoding, decoding, size * (work.answer - 1)

    together(work, answer_all)


main(*arguments())
