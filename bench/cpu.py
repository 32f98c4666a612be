"""Speed on this CPU beside llama.cpp: the same weights, both engines in turn, medians of the ratios of each round.

    python bench/cpu.py [MODEL] [--rounds 3] [--peer-python PATH]

PATH is a Python that has llama-cpp-python (`pip install llama-cpp-python` in an environment of its own; it compiles).
Each round runs every engine once, in a process of its own, so that what else the machine does hits them alike; only the
ratios are to be trusted. llama.cpp reads the model's own GGUF file, and a Q8_0 made from it, which is what our int8 is
comparable with in accuracy.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from myna.modeldir import DEFAULT, ModelDir, find

HERE = Path(__file__).parent
QUANTIZE = """
import sys, llama_cpp as lc
params = lc.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = lc.LLAMA_FTYPE_MOSTLY_Q8_0, True
sys.exit(lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""
Figures = dict[tuple[str, int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable)
    args = parser.parse_args()
    if subprocess.run([args.peer_python, "-c", "import llama_cpp"], capture_output=True).returncode:
        sys.exit(f"{args.peer_python} has no llama_cpp. Make an environment for it: pip install llama-cpp-python")
    engines = commands(args.model, args.peer_python)
    rounds = []
    for number in range(args.rounds):
        rounds.append({name: run(command) for name, command in engines.items()})
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    report(args.model, rounds)


def commands(model: str, peer: str) -> dict[str, list[str]]:
    """Engine -> the command that times it. The first is what the others are compared with."""
    directory = ModelDir.open(find(model))
    gguf = directory.path / "model.gguf"
    kinds = sorted({s.kind for s in directory.weights.values() if len(s.shape) > 1})
    q8 = gguf.parent.parent.parent / "bench" / f"{directory.name}-q8_0.gguf"
    if not q8.exists():
        q8.parent.mkdir(exist_ok=True)
        subprocess.run([peer, "-c", QUANTIZE, gguf, q8], check=True, capture_output=True)
    script = str(HERE / "peer_llama_cpp.py")
    return {
        "llama.cpp Q8_0": [peer, script, str(q8)],
        f"llama.cpp {'+'.join(kinds)}": [peer, script, str(gguf)],
        "myna int8": [sys.executable, "-m", "myna", "bench", model, "--json", "--precision", "int8"],
        "myna auto": [sys.executable, "-m", "myna", "bench", model, "--json"],
    }


def run(command: list[str]) -> Figures:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["what"], row["batch"]): row["tokens_per_second"] for row in rows}


def report(model: str, rounds: list[dict[str, Figures]]) -> None:
    names = list(rounds[0])
    columns = list(rounds[0][names[0]])
    print(f"{model}: median tokens/s (ratio to {names[0]} of the same round), {len(rounds)} rounds\n")
    print("| engine | " + " | ".join(f"{what} b{batch}" for what, batch in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = []
        for column in columns:
            rate = median(r[name][column] for r in rounds)
            ratio = median(r[name][column] / r[names[0]][column] for r in rounds)
            cells.append(f"{rate:.1f} ({ratio:.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
