"""vLLM's logits over given token ids, for bench/quality.py, which runs this with a Python that has vllm.

    python bench/peer_logits_vllm.py DIRECTORY < JOB.json > LOGITS

JOB and LOGITS are those of peer_logits.py, but every chunk goes in whole. vLLM gives the likeliest tokens only, so what
its model computes is looked at on its way to the sampler.
"""

import json
import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch  # after the environment that vLLM reads
from vllm import LLM, SamplingParams


def main(path: str) -> None:
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # vLLM prints on both
    job, seen = json.load(sys.stdin), list[torch.Tensor]()
    llm = LLM(
        path, dtype="bfloat16", skip_tokenizer_init=True, enable_prefix_caching=False, enforce_eager=True,
        max_model_len=1024, max_num_seqs=8, max_num_batched_tokens=1024, disable_log_stats=True,
    )  # fmt: skip
    llm.apply_model(lambda model: watch(model, seen))
    whole = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, prompt_logprobs=1, detokenize=False)
    for ids in job["chunks"]:
        seen.clear()
        llm.generate({"prompt_token_ids": ids}, whole, use_tqdm=False)
        rows = torch.cat(sorted(seen, key=len, reverse=True))  # all positions but the last, then the last
        assert len(rows) == len(ids), [len(part) for part in seen]
        out.write(rows.numpy().tobytes())
    greedy = SamplingParams(temperature=0.0, max_tokens=job["answer"], stop_token_ids=job["stop"], detokenize=False)
    done = llm.generate([{"prompt_token_ids": ids} for ids in job["prompts"]], greedy, use_tqdm=False)
    out.write(json.dumps([list(each.outputs[0].token_ids) for each in done]).encode())


def watch(model: torch.nn.Module, seen: list[torch.Tensor]) -> None:
    """Keep a float32 copy of all logits that the model computes."""
    compute = model.compute_logits

    def watched(*args: object, **options: object) -> torch.Tensor:
        logits = compute(*args, **options)
        seen.append(logits.float().clone())
        return logits

    model.compute_logits = watched


main(sys.argv[1])
