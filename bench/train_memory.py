"""Peak memory of fine-tuning a model in full, beside LoRA, and as QLoRA, beside what `myna plan` says: same rows, each in a
process of its own.

    python bench/train_memory.py smollm2-135m [--context 256] [--rows 2]

What is trained and how is `myna train`'s own; the text is this repository's documentation. The peak is the largest resident set
that the system saw, of the whole process: torch alone takes about 300 MB of it.
"""

import argparse
import tempfile

from train_plan import CHILD, DOCS, PLAN, ask

KINDS = {
    "full": "--lora.rank 0",
    "lora": "--lora.rank 8",
    "dora": "--lora.rank 8 --lora.kind dora",
    "qlora, stored": "--lora.rank 8 --lora.base stored",
    "qlora, nf4": "--lora.rank 8 --lora.base nf4",
}


def measure(model: str, kind: str, *, context: int = 256, rows: int = 2, steps: int = 3) -> dict[str, float]:
    """Bytes that the plan says, bytes at the peak of the run, and the first step's loss. The first step has no moments yet."""
    flags = (
        f"--model.start {model} --data.train {DOCS / 'design.md'} --data.context {context} --run.rows {rows} "
        f"--run.steps {steps} --run.save 0 {KINDS[kind]}"
    )
    with tempfile.TemporaryDirectory() as folder:
        plan, ran = (ask(child, flags, f"{folder}/run") for child in (PLAN, CHILD))
    return {"plan": plan["peak"], "peak": ran["peak"], "loss": ran["losses"][0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=2)
    told = parser.parse_args()
    print("| trained | plan | peak | ratio | loss of the first step |\n|---|---:|---:|---:|---:|")
    for kind in KINDS:
        found = measure(told.model, kind, context=told.context, rows=told.rows)
        plan, peak = found["plan"], found["peak"]
        print(
            f"| {kind} | {plan / 1e6:,.0f} MB | {peak / 1e6:,.0f} MB | {plan / peak:.2f} | {found['loss']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
