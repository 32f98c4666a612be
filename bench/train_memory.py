"""Peak memory of fine-tuning a model in full, beside LoRA, and as QLoRA: same rows, each in a process of its own.

    python bench/train_memory.py smollm2-135m [--context 256] [--rows 2]

What is trained and how is `myna train`'s own; the text is this repository's documentation. The peak is the largest resident set
that the system saw, of the whole process: torch alone takes about 300 MB of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = {
    "full": "--lora.rank 0",
    "lora": "--lora.rank 8",
    "dora": "--lora.rank 8 --lora.kind dora",
    "qlora, stored": "--lora.rank 8 --lora.base stored",
    "qlora, nf4": "--lora.rank 8 --lora.base nf4",
}
DOCS = Path(__file__).parents[1] / "docs"
CHILD = """
import json, resource, sys
from myna.train.run import begin, configure
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = begin(configure("pretrain", None, sys.argv[1:])).run
losses = [line["loss"] for line in map(json.loads, open(run / "log.jsonl")) if "loss" in line]
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, "empty": before << 10, "loss": losses[-1]}))
"""


def measure(model: str, kind: str, *, context: int = 256, rows: int = 2, steps: int = 1) -> dict[str, float]:
    """Bytes at the peak of a run, of a process that has only imported torch, and the last step's loss."""
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--model.start {model} --data.train {DOCS / 'design.md'} --data.context {context} --run.rows {rows} "
            f"--run.steps {steps} --run.save 0 --run.out {folder}/run {KINDS[kind]}"
        )
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *flags.split()], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=2)
    told = parser.parse_args()
    print("| trained | peak | loss of the first step |\n|---|---:|---:|")
    for kind in KINDS:
        found = measure(told.model, kind, context=told.context, rows=told.rows)
        print(f"| {kind} | {found['peak'] / 1e6:,.0f} MB | {found['loss']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
