"""What `myna plan` says beside what `myna train` takes: seconds of a step and bytes at the peak, in pairs close together.

    python bench/train_plan.py [--pairs 3] [--steps 25]

Each pair measures the machine anew, plans, and trains in a process of its own on this repository's documentation; the run's
time is the median of its steps but the first three, its peak the largest resident set that the system saw.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
CASES = {
    "depth 3, 8 rows": "--model.depth 3 --run.rows 8",
    "depth 3, 4 rows": "--model.depth 3 --run.rows 4",
    "depth 6, 4 rows": "--model.depth 6 --run.rows 4",
    "depth 6, 1 row": "--model.depth 6 --run.rows 1",
    "depth 6, 4 rows, bfloat16": "--model.depth 6 --run.rows 4 --model.precision bfloat16",
}
CHILD = """
import json, sys
from myna.train.run import begin, configure
run = begin(configure("pretrain", None, sys.argv[1:])).run
lines = [json.loads(line) for line in open(run / "log.jsonl")]
peak = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"peak": peak, "seconds": [line["seconds"] for line in lines if "loss" in line],
    "losses": [line["loss"] for line in lines if "loss" in line]}))
"""
PLAN = """
import json, sys
from myna.train.plan import plan
from myna.train.profile import measure_profile
from myna.train.run import configure, planned
work = planned(configure("pretrain", None, sys.argv[1:]))
made = plan(work, measure_profile(work))
memory = {part: getattr(made.memory, part) for part in made.memory.__slots__}
print(json.dumps({"peak": made.memory.total, "seconds": made.seconds / work.steps, "of": work.spec.parameters(), "memory": memory}))
"""


def ask(child: str, flags: str, folder: str) -> dict[str, Any]:
    told = [*flags.split(), "--run.out", folder]
    done = subprocess.run([sys.executable, "-c", child, *told], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    told = parser.parse_args()
    print(
        "| run | parameters | time, plan / run | each pair | peak, plan / run | ratio |\n|---|---:|---:|---|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        words = f"{folder}/words"
        learn = [sys.executable, "-m", "myna", "tokenizer", "train", str(DOCS), "--out", words, "--vocab", "1024"]
        subprocess.run(learn, capture_output=True, check=True)
        common = (
            f"--model.tokenizer {words} --data.train {DOCS} --data.context 256 --run.steps {told.steps} "
            "--run.save 0 --optim.warmup 2"
        )
        for number, (name, flags) in enumerate(CASES.items()):
            pairs = []
            for pair in range(told.pairs):
                place = f"{folder}/{number}-{pair}"
                planned = ask(PLAN, f"{common} {flags}", place)
                ran = ask(CHILD, f"{common} {flags}", place)
                pairs.append((planned, ran, statistics.median(ran["seconds"][3:])))
            ratios = [planned["seconds"] / seconds for planned, _, seconds in pairs]
            planned, ran = pairs[-1][0], pairs[-1][1]
            print(
                f"| {name} | {planned['of'] / 1e6:.1f} M | {statistics.median(ratios):.2f} | "
                f"{', '.join(f'{r:.2f}' for r in ratios)} | {planned['peak'] / 1e6:,.0f} / {ran['peak'] / 1e6:,.0f} MB | "
                f"{planned['peak'] / ran['peak']:.2f} |",
                flush=True,
            )
            print(planned["memory"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
