"""Half an hour of one GPU: from a folder of text to a base model, with what it reached of the machine.
`python speedrun.py OUT TEXTS HELD` where TEXTS is a file or a folder to read, a few gigabytes, and HELD is text that nobody read.
"""

import itertools
import json
import lzma
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
VOCAB = 32768
WORDS = 300_000_000  # bytes the tokenizer is learned from
WINDOW = 64 << 20  # bytes of TEXTS that xz packs before HELD: it cannot look back further


def main(out: Path, texts: Path, held: Path, *more: str) -> dict[str, float]:
    """`more` are flags of the training, such as --run.steps 20. Returns figure -> value."""
    files = sorted(file for file in texts.rglob("*") if file.is_file()) if texts.is_dir() else [texts]
    once(out / "words", "tokenizer", "train", *first(files, WORDS), "--out", out / "words", "--vocab", VOCAB)
    once(out / "shards", "data", "tokenize", texts, "--out", out / "shards", "--model", out / "words",
         "--as", "documents", "--context", 1024, "--eval", held)  # fmt: skip
    told = ("--model.tokenizer", out / "words", "--data.train", out / "shards", "--data.eval", held)
    myna("train", "pretrain", HERE / "pretrain.yaml", *told, "--run.out", out / "run", *more)
    found = figures(out / "run") | {"xz, bits a byte": packed(files, held)}
    for name, value in found.items():
        print(f"{name:<28} {value:,.3f}")
    return found


def figures(run: Path) -> dict[str, float]:
    """What the log of a run says: the median step's speed, and the best evaluation."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "seconds" in line]
    return {
        "tokens/s, the median step": statistics.median(line["tokens"] / line["seconds"] for line in steps),
        "minutes in steps": sum(line["seconds"] for line in steps) / 60,
        "the model, bits a byte": min(line["eval"]["bits_per_byte"] for line in lines if "eval" in line),
    }


def first(files: list[Path], most: int) -> list[Path]:
    """The first of them, up to so many bytes; at least one."""
    ends = itertools.accumulate(file.stat().st_size for file in files)
    return files[: max(1, sum(end <= most for end in ends))]


def packed(files: list[Path], held: Path) -> float:
    """What HELD costs xz after it has packed the first of the texts: bits a byte."""
    before, after = b"".join(file.read_bytes() for file in first(files, WINDOW))[:WINDOW], held.read_bytes()
    size = [len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) for data in (before, before + after)]
    return 8 * (size[1] - size[0]) / len(after)


def once(made: Path, *words: object) -> None:
    """What takes long and is there already is not made again."""
    if not made.exists():
        myna(*words)


def myna(*words: object) -> None:
    command = ["myna", *map(str, words)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", *command]).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
