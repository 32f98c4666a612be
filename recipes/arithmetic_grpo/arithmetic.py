"""Sums of two numbers below a hundred: a model that was shown some of them gets better by being told which of its own answers
are right. `python arithmetic.py OUT` prints what it runs, then pass@1 on sums that nobody showed it, with a control that is
told at random.
"""

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HELD = 200  # sums of the examination


def main(out: Path, *more: str) -> dict[str, float]:
    """`more` are flags for each training, such as --run.steps 2. Returns stage -> share of right answers."""
    files = write(out / "data")
    myna("tokenizer", "train", files["shown"], "--out", out / "words", "--vocab", 267)

    tell("SFT on some sums, until about two in five are right")
    start = ("--model.depth", "3", "--model.tokenizer", out / "words")
    train("sft", out / "sft", *start, "--data.train", files["shown"], "--data.eval", files["held_shown"], *more)

    found = {}
    for name, asked in (("grpo", "asked"), ("control", "permuted")):
        tell(
            f"{name}: its own answers to other sums, scored by {'the truth' if name == 'grpo' else 'the truths of other sums'}"
        )
        start = ("--model.start", out / "sft/model")
        train("grpo", out / name, *start, "--data.train", files[asked], "--data.eval", files["held"], *more)
        found[name] = rewards(out / name)
    (first, last), (_, other) = found["grpo"], found["control"]
    print(f"\nright at first {first:.0%}, after GRPO {last:.0%}, after the control {other:.0%}", flush=True)
    return {"before": first, "after": last, "control": other}


def write(folder: Path) -> dict[str, Path]:
    """Which sums are shown, which are only asked, and which nobody sees before the examination, is drawn once."""
    draw = random.Random(0)
    sums = [(a, b) for a in range(100) for b in range(100)]
    draw.shuffle(sums)
    held, shown, asked = sums[:HELD], sums[HELD : HELD + 4000], sums[HELD + 4000 :]
    others = [a + b for a, b in asked]
    draw.shuffle(others)  # as many rewards to be had as before, but for nothing
    rows = {
        "shown": [chat(a, b, answer=a + b) for a, b in shown],
        "held_shown": [chat(a, b, answer=a + b) for a, b in held],
        "held": [chat(a, b, target=a + b) for a, b in held],
        "asked": [chat(a, b, target=a + b) for a, b in asked],
        "permuted": [chat(a, b, target=c) for (a, b), c in zip(asked, others, strict=True)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.jsonl" for name in rows}
    for name, made in rows.items():
        files[name].write_text("".join(json.dumps(row) + "\n" for row in made))
    return files


def chat(a: int, b: int, *, answer: int | None = None, target: int | None = None) -> dict:
    """A question with its answer, to learn from; or with its target, to be scored by."""
    asked = [{"role": "user", "content": f"{a}+{b}="}]
    if target is not None:
        return {"messages": asked, "target": str(target)}
    return {"messages": [*asked, {"role": "assistant", "content": str(answer)}]}


def rewards(run: Path) -> tuple[float, float]:
    """Shares of right answers: of the first step's, by the model as it came, and at the last evaluation."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return lines[0]["reward"], [line["eval"]["reward"] for line in lines if "eval" in line][-1]


def train(method: str, out: Path, *more: object) -> None:
    myna("train", method, HERE / f"{method}.yaml", *more, "--run.out", out)


def myna(*words: object) -> None:
    command = ["myna", *map(str, words)]
    print(f"   $ {shlex.join(command)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", *command]).returncode:
        sys.exit(status)


def tell(step: str) -> None:
    print(f"\n{step}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
