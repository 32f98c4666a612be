"""llama.cpp's logits over given token ids, for bench/quality.py, which runs this with a Python that has llama_cpp.

    python bench/peer_logits.py MODEL.gguf < JOB.json > LOGITS

JOB: {"chunks": [[id, ...], ...], "decoded": how many of a chunk's last tokens go one by one, "prompts": [[id, ...], ...],
"answer": tokens to continue each prompt by, "stop": [id, ...]}. LOGITS: float32 [T, V] of every chunk, then a line of JSON
with the greedy answers.
"""

import ctypes
import json
import sys

import llama_cpp as lc
import numpy as np

quiet = lc.llama_log_callback(lambda level, text, data: None)


class Context:
    def __init__(self, path: str, size: int):
        lc.llama_log_set(quiet, ctypes.c_void_p(0))
        lc.llama_backend_init()
        model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
        params = lc.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = size
        # Nothing is timed, and on a busy machine its threads wait for each other longer than they compute.
        params.n_threads = params.n_threads_batch = 1
        self.context = lc.llama_init_from_model(model, params)
        self.batch = lc.llama_batch_init(size, 0, 1)
        self.length = 0

    def clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)
        self.length = 0

    def logits(self, ids: list[int], wanted: int) -> np.ndarray:
        """float32 [wanted, V] of the last positions, after these tokens; good until the next call."""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i] = token, self.length + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = i >= len(ids) - wanted
        if lc.llama_decode(self.context, self.batch):
            sys.exit("llama_decode failed")
        self.length += len(ids)
        return np.ctypeslib.as_array(lc.llama_get_logits(self.context), (wanted, self.vocab))

    def greedy(self, prompt: list[int], most: int, stop: set[int]) -> list[int]:
        self.clear()
        answer, row = [], self.logits(prompt, 1)
        while len(answer) < most:
            answer.append(int(row[0].argmax()))
            if answer[-1] in stop:
                break
            row = self.logits(answer[-1:], 1)
        return answer


def main(path: str) -> None:
    job = json.load(sys.stdin)
    context = Context(path, 64 + max(len(ids) + job["answer"] for ids in [*job["chunks"], *job["prompts"]]))
    for ids in job["chunks"]:
        context.clear()
        cut = max(len(ids) - job["decoded"], 1)
        sys.stdout.buffer.write(context.logits(ids[:cut], cut).tobytes())
        for i in range(cut, len(ids)):
            sys.stdout.buffer.write(context.logits(ids[i : i + 1], 1).tobytes())
    answers = [context.greedy(prompt, job["answer"], set(job["stop"])) for prompt in job["prompts"]]
    sys.stdout.buffer.write(json.dumps(answers).encode())


if __name__ == "__main__":
    main(sys.argv[1])
