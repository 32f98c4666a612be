"""A small model that writes poems: from poems, in Chinese or any language, to a model that goes on with a first line.
`python poet.py OUT POEMS` where POEMS is a file or a folder: rows {"text"} or {"title"?, "author"?, "paragraphs"}, or .txt with
empty lines between poems.
"""

import gzip
import json
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
HELD = 50  # every so many poems one is held out
BEGINNINGS = ("春", "明月", "秋风", "故人", "江上")  # what it goes on with, if the poems are Chinese


def main(out: Path, source: Path, *more: str) -> Path:
    """`more` are flags of the training, such as --run.steps 20. Returns the model."""
    poems = [*dict.fromkeys(read(source))]
    if len(poems) < 2 * HELD:
        raise SystemExit(f"{source}: {len(poems)} poems are too few")
    random.Random(0).shuffle(poems)
    held, train = poems[::HELD], [poem for n, poem in enumerate(poems) if n % HELD]
    chinese = any("\u4e00" <= c <= "\u9fff" for c in train[0])
    first = BEGINNINGS if chinese else tuple(poem.split("\n")[0] for poem in held[:5])
    files = {name: write(out / f"data/{name}.jsonl", texts) for name, texts in
             (("train", train), ("held", held), ("beginnings", first))}  # fmt: skip
    print(f"{len(train):,} poems, {len(held):,} held out", flush=True)

    myna("tokenizer", "train", files["train"], "--out", out / "words", "--vocab", 4096)
    told = ("--model.tokenizer", out / "words", "--data.train", files["train"], "--data.eval", files["held"])
    myna(
        "train",
        "pretrain",
        HERE / "pretrain.yaml",
        *told,
        "--run.prompts",
        files["beginnings"],
        "--run.out",
        out / "run",
        *more,
    )
    print((max((out / "run/samples").glob("*.md"), key=lambda file: int(file.stem[5:]))).read_text())
    print(f"go on with any line: myna generate --model {out / 'run/model'} --raw 春")
    return out / "run/model"


def read(source: Path) -> Iterator[str]:
    """Poems: a title's line, if there is one, then the poem's lines."""
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if not file.is_file():
            continue
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
        if ".jsonl" in file.suffixes:
            yield from (poem for line in text.splitlines() if (poem := told(json.loads(line))))
        elif ".txt" in file.suffixes:
            yield from (poem.strip() for poem in text.split("\n\n") if poem.strip())


def told(row: dict) -> str:
    lines = row.get("text") or row.get("paragraphs") or row.get("content") or ""
    return "\n".join(lines) if isinstance(lines, list) else str(lines)


def write(file: Path, texts: list[str] | tuple[str, ...]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    return file


def myna(*words: object) -> None:
    command = ["myna", *map(str, words)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", *command]).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
