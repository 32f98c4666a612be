"""A small model reads Python's own documentation and source, and is weighed against gzip, bz2 and xz in the same unit: bits a
byte of text that none of them saw. `python docs.py OUT [FOLDER]`; without a folder, the standard library that is running this.
"""

import bz2
import gzip
import json
import lzma
import random
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
HELD = 20  # every so many files one is held out
LARGEST = 400_000  # bytes of a file; larger ones are tables
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda data: gzip.compress(data, 9),
    "bzip2 -9": lambda data: bz2.compress(data, 9),
    "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
}


def main(out: Path, source: Path | None = None, *more: str) -> dict[str, float]:
    """`more` are flags of the training, such as --run.steps 20. Returns who -> bits a byte."""
    train, held = read(source or Path(sysconfig.get_path("stdlib")))
    print(f"{len(train):,} texts to read, {sum(map(len, train)):,} bytes; {len(held):,} held out", flush=True)
    files = {"train": write(out / "data/train.jsonl", train), "held": write(out / "data/held.jsonl", held)}
    found = {}
    for name, pack in PACKERS.items():
        found[name] = bits(pack, train, held)
        print(f"   {name:<10} {found[name]:.3f} bits a byte of what is held out", flush=True)

    myna("tokenizer", "train", files["train"], "--out", out / "words", "--vocab", 2048)
    told = ("--model.tokenizer", out / "words", "--data.train", files["train"], "--data.eval", files["held"])
    myna("train", "pretrain", HERE / "pretrain.yaml", *told, "--run.out", out / "run", *more)
    lines = [json.loads(line) for line in (out / "run/log.jsonl").read_text().splitlines()]
    found["the model"] = min(line["eval"]["bits_per_byte"] for line in lines if "eval" in line)

    print("\nbits a byte of the held-out text")
    for name, value in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"   {name:<10} {value:.3f}")
    return found


def bits(pack: Callable[[bytes], bytes], train: list[bytes], held: list[bytes]) -> float:
    """What the held-out text costs whoever has packed the other before it: as much help as the model had."""
    before, after = b"".join(train), b"".join(held)
    return 8 * (len(pack(before + after)) - len(pack(before))) / len(after)


def read(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Texts to learn from and texts held out, each once."""
    texts = set()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".rst", ".txt", ".md") and "site-packages" not in file.parts and file.is_file():
            data = file.read_bytes()
            if 0 < len(data) <= LARGEST and is_text(data):
                texts.add(data)
    if len(texts) < 2 * HELD:
        raise SystemExit(f"{folder}: {len(texts)} texts are too few")
    ordered = sorted(texts)
    random.Random(0).shuffle(ordered)
    return [text for n, text in enumerate(ordered) if n % HELD], ordered[::HELD]


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def write(file: Path, texts: list[bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text.decode()}, ensure_ascii=False) + "\n" for text in texts))
    return file


def myna(*words: object) -> None:
    command = ["myna", *map(str, words)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", *command]).returncode:
        sys.exit(status)


if __name__ == "__main__":
    given = sys.argv[2:]
    folder = Path(given.pop(0)) if given and not given[0].startswith("--") else None
    main(Path(sys.argv[1]), folder, *given)
