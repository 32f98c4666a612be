"""OpenVINO GenAI on a GGUF file, timed as work.py says. Run by bench/cpu.py with a Python that has openvino_genai.

One sequence runs in an LLMPipeline, several in a ContinuousBatchingPipeline without its prefix cache, each as OpenVINO
sets them up for this processor.
"""

import time
from itertools import count
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from work import Work, arguments, prompt, single, together

VOCAB = 40_000  # ids below it: the pipeline does not say how many there are, and every model measured here has more
ROOM = 2  # gigabytes for keys and values


def greedy(tokens: int) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
    return config


def ids(length: int) -> ov.Tensor:
    return ov.Tensor(np.array([prompt(length, VOCAB)], np.int64))


def alone(path: str, work: Work) -> None:
    pipeline = genai.LLMPipeline(path, "CPU")

    def run(length: int, tokens: int) -> Any:
        mask = ov.Tensor(np.ones((1, length), np.int64))
        done = pipeline.generate(genai.TokenizedInputs(ids(length), mask), greedy(tokens))
        return done.perf_metrics.raw_metrics  # microseconds

    def prefill(length: int) -> float:
        return run(length, 1).m_times_to_first_token[0] / 1e6

    def decode(context: int) -> list[float]:
        return [duration / 1e6 for duration in run(context, 1 + work.steps).m_durations]

    single(work, prefill, decode)


def in_company(path: str, work: Work) -> None:
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.cache_size = ROOM
    scheduler.max_num_seqs = max(work.batches)
    scheduler.max_num_batched_tokens = work.prompt
    pipeline = genai.ContinuousBatchingPipeline(path, scheduler, "CPU")
    numbers = count()

    def answer_all(size: int, tokens: int = work.answer) -> tuple[float, float, int]:
        prompts = [ids(work.context) for _ in range(size)]
        started = time.perf_counter()
        handles = [pipeline.add_request(next(numbers), given, greedy(tokens)) for given in prompts]
        seen = [0] * size
        while not all(seen):
            pipeline.step()
            seen = [n + read(handle) for n, handle in zip(seen, handles, strict=True)]
        begun = time.perf_counter()
        while pipeline.has_non_finished_requests():
            pipeline.step()
        ended = time.perf_counter()
        return ended - started, ended - begun, size * tokens - sum(seen)

    answer_all(2, 8)  # warm up
    together(work, answer_all)


def read(handle: Any) -> int:
    """How many tokens came since the last look."""
    return sum(len(out.generated_ids) for out in handle.read().values()) if handle.can_read() else 0


alone(*arguments())
in_company(*arguments())
