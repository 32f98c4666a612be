"""A life of two minutes: words, reading, answering, manners, work. `python life.py OUT` runs the commands that it prints, then
asks the served model what it was never asked before.
"""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import world

HERE = Path(__file__).parent


def main(out: Path, *more: str) -> dict[str, tuple[float, float]]:
    """Every stage. `more` are flags for each training, such as --run.steps 2. Returns stage -> (right, kind), as shares."""
    tell("a world: thirty animals, in English and Chinese")
    world.write(out / "data")
    data = {name: out / "data" / f"{name}.jsonl" for name in ("texts", "chats", "pairs", "held", "prompts")}
    held = [json.loads(line)["messages"] for line in data["held"].read_text().splitlines()]
    data["prompts"].write_text(data["held"].read_text())  # what is asked at every evaluation, for the report

    tell("words: a tokenizer for this world")
    myna("tokenizer", "train", data["texts"], data["chats"], "--out", out / "words", "--vocab", 768)

    tell("reading: a model of 1.5 million numbers learns what the next word is")
    train("pretrain", out / "read", *more, **{"model.tokenizer": out / "words", "data.train": data["texts"]})

    tell("answering: the same model learns what a question is, from four animals of five")
    sets = {"data.train": data["chats"], "data.eval": data["held"], "run.prompts": data["prompts"]}
    train("sft", out / "answer", *more, **{"model.start": out / "read/model"}, **sets)

    tell("manners: of two right answers it learns to prefer the kind one")
    sets = {"data.train": data["pairs"], "run.prompts": data["prompts"]}
    train("dpo", out / "liked", *more, **{"model.start": out / "answer/model"}, **sets)

    tell("work: each stage is served, and asked about animals of which it has only read")
    found = {}
    for stage in ("read", "answer", "liked"):
        with served(out / stage / "model") as url:
            found[stage] = examine(url, held)
        right, kind = found[stage]
        print(f"   {stage:<7} right {right:4.0%}   kind {kind:4.0%}", flush=True)
    print(f"\ntalk to it: myna chat {out / 'liked/model'}\nsee how it learned: {out}/*/report.html")
    return found


def examine(url: str, held: list[list[dict]]) -> tuple[float, float]:
    """Shares of answers that begin with the truth, and that end with a kind word."""
    said = [ask(url, question["content"]) for question, _ in held]
    right = sum(one.startswith(truth["content"]) for one, (_, truth) in zip(said, held, strict=True))
    kind = sum(one.endswith(tuple(word.strip() for word in world.KIND)) for one in said)
    return right / len(held), kind / len(held)


def ask(url: str, question: str) -> str:
    """One answer, by OpenAI's API."""
    body = {"model": "life", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40}
    asked = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of a server for as long as it is needed."""
    command = [sys.executable, "-m", "myna", "serve", str(model), "--name", "life", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            told = ""
            for line in server.stderr:
                told += line
                if at := re.search(r"answers at (http://\S+)", line):
                    yield at[1]
                    return
            raise SystemExit(f"the server did not start:\n{told}")
        finally:
            server.terminate()


def train(method: str, out: Path, *more: str, **keys: Path) -> None:
    flags = [word for key, value in keys.items() for word in (f"--{key}", value)]
    myna("train", method, HERE / f"{method}.yaml", *flags, "--run.out", out, *more)


def myna(*words: object) -> None:
    command = ["myna", *map(str, words)]
    print(f"   $ {shlex.join(command)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", *command]).returncode:
        sys.exit(status)


def tell(step: str) -> None:
    print(f"\n{step}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
