"""Speed on this CPU beside other engines: the same weights and work, all in turn, medians of the ratios of each round.

    python bench/cpu.py [MODEL] [--peer llama.cpp=PYTHON] [--peer openvino=PYTHON] [--peer vllm=PYTHON]
                        [--rounds 3] [--long 8000] [--out FILE] [--own "--precision int8 --kv int8"]

PYTHON is the interpreter of an environment of the peer's own; docs/benchmarks.md says how to make them. A peer that is
not given, or fails, is left out and said so. Each round runs every engine once, in a process of its own, so that what
else the machine does hits them alike; only ratios of one round are to be trusted. All read the model's own GGUF file, or
what is made of its numbers once and kept in Myna's cache: Q8_0, Q4_0 and Q4_K_M (those of bench/quality.py) and W8A8.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gguf_kinds import f16, quantized, w8a8

from myna.engine.measure import ANSWER, BATCHES, CONTEXT, PROMPT, STEPS
from myna.modeldir import DEFAULT, ModelDir, cache_dir, find

HERE = Path(__file__).parent
PEERS = {"llama.cpp": "llama_cpp", "openvino": "openvino_genai", "vllm": "vllm"}  # and what their environment must hold
OWN = ("--precision int8", "--precision int4", "--precision auto")
LONGEST = 1800  # seconds that one engine may take; vLLM compiles for two minutes before it starts
Row = dict[str, Any]
Figures = dict[tuple[str, int, int], Row]
Commands = dict[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=0, help="also a prompt of so many tokens, and decoding after it")
    parser.add_argument("--out", type=Path, help="where each round's figures go, one JSON object a line")
    parser.add_argument("--own", action="append", metavar="FLAGS", help=f"of myna bench; by default each of {OWN}")
    args = parser.parse_args()
    peers = dict(read_peer(parser, given) for given in args.peer)
    for name in PEERS.keys() - peers.keys():
        print(f"{name} is left out: no --peer {name}=PYTHON", file=sys.stderr)
    engines = peer_commands(args.model, peers, args.long) | own_commands(args.model, args.own or OWN, args.long)
    rounds: list[dict[str, Figures]] = []
    for number in range(args.rounds):
        rounds.append(one_round(engines, args.out))
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr)
    report(args.model, rounds, engines)


def read_peer(parser: argparse.ArgumentParser, given: str) -> tuple[str, str]:
    name, _, python = given.partition("=")
    if name not in PEERS or not python:
        parser.error(f"--peer {given}: give one of {', '.join(PEERS)} as NAME=PYTHON")
    if subprocess.run([python, "-c", f"import {PEERS[name]}"], capture_output=True).returncode:
        parser.error(
            f"--peer {given}: this Python cannot import {PEERS[name]}; docs/benchmarks.md says how to set it up"
        )
    return name, python


def own_commands(model: str, own: Sequence[str], long: int) -> Commands:
    command = [sys.executable, "-m", "myna", "bench", model, "--json", "--long", str(long)]
    return {f"myna {flags.replace('--precision ', '')}": [*command, *shlex.split(flags)] for flags in own}


def peer_commands(model: str, peers: dict[str, str], long: int) -> Commands:
    """Engine -> the command that times it."""
    if not peers:
        return {}
    directory = ModelDir.open(find(model))
    gguf = directory.path / "model.gguf"
    if not gguf.exists():
        sys.exit(
            f"{model} is no GGUF file, and the peers are given one. Pull one from the catalogue, or leave --peer out."
        )
    work = json.dumps({
        "prompt": PROMPT, "context": CONTEXT, "answer": ANSWER, "steps": STEPS, "batches": BATCHES[1:], "long": long,
    })  # fmt: skip
    commands: Commands = {}
    folder = cache_dir() / "bench"
    source = f16(directory, folder) / "model.gguf"
    if python := peers.get("llama.cpp"):
        script = [python, str(HERE / "peer_llama_cpp.py")]
        for kind in ("Q8_0", "Q4_0", "Q4_K_M"):
            commands[f"llama.cpp {kind}"] = [*script, str(quantized(source, kind, python)), work]
        kinds = sorted({stored.kind for stored in directory.weights.values() if len(stored.shape) > 1})
        commands[f"llama.cpp {'+'.join(kinds)}"] = [*script, str(gguf), work]
    if python := peers.get("openvino"):
        if "llama.cpp" in peers:
            q8 = quantized(source, "Q8_0", peers["llama.cpp"])
            commands["OpenVINO Q8_0"] = [python, str(HERE / "peer_openvino.py"), str(q8), work]
        else:
            print("openvino is left out: its Q8_0 file is made by --peer llama.cpp=PYTHON", file=sys.stderr)
    if python := peers.get("vllm"):
        commands["vLLM W8A8"] = [python, str(HERE / "peer_vllm.py"), str(w8a8(directory, folder)), work]
    return commands


def one_round(engines: Commands, out: Path | None) -> dict[str, Figures]:
    """Every engine once. One that fails is taken out of `engines`."""
    figures: dict[str, Figures] = {}
    for name, command in [*engines.items()]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
            failed = f"exit status {done.returncode}\n{done.stderr[-2000:]}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failed = f"no answer in {LONGEST} seconds"
        if failed:
            print(f"{name} is left out, it failed:\n{' '.join(command)}\n{failed}", file=sys.stderr)
            del engines[name]
            continue
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        figures[name] = {(row["what"], row["batch"], row["context"]): row for row in rows}
        if out:
            with out.open("a") as file:
                file.writelines(json.dumps({"engine": name} | row) + "\n" for row in rows)
    return figures


def report(model: str, rounds: list[dict[str, Figures]], engines: Commands) -> None:
    """Tokens/s of everybody; then, for each of our precisions, its ratio to each peer."""
    names = [name for name in engines if all(name in figures for figures in rounds)]
    ours = [name for name in names if name.startswith("myna")]
    peers = [name for name in names if name not in ours]
    if not ours:
        sys.exit("Myna itself failed, so there is nothing to compare.")
    columns = [key for key in rounds[0][ours[0]] if all(key in rounds[0][name] for name in names)]
    print(f"{model}, {len(rounds)} rounds, medians; requests are {CONTEXT} tokens in and {ANSWER} out")
    table("tokens/s [while all decode]", names, columns, lambda name, key: speed(rounds, name, key))
    for mine in ours:
        if peers:
            table(f"{mine} /", peers, columns, lambda name, key, mine=mine: ratio(rounds, mine, name, key))
    shares = [key for key in rounds[0][ours[0]] if key[0].startswith("decode")]
    table("host; of the bandwidth", ours, shares, lambda name, key: share(rounds, name, key))


def table(title: str, names: list[str], keys: list[tuple[str, int, int]], cell: Callable[..., str]) -> None:
    heads = [
        f"{batch} requests" if what == "requests" else f"{what} {context} x {batch}" for what, batch, context in keys
    ]
    print(f"\n| {title} | " + " | ".join(heads) + " |\n" + "|---" * (len(keys) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(cell(name, key) for key in keys) + " |")


def speed(rounds: list[dict[str, Figures]], name: str, key: tuple[str, int, int]) -> str:
    rows = [figures[name][key] for figures in rounds]
    decoding = median(row["decoding"] for row in rows)
    return f"{median(row['tokens_per_second'] for row in rows):.1f}" + (f" [{decoding:.1f}]" if decoding else "")


def ratio(rounds: list[dict[str, Figures]], mine: str, peer: str, key: tuple[str, int, int]) -> str:
    pairs = [(figures[mine][key], figures[peer][key]) for figures in rounds]
    whole = median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
    if not all(b["decoding"] for _, b in pairs):
        return f"{whole:.2f}"
    return f"{whole:.2f} [{median(a['decoding'] / b['decoding'] for a, b in pairs):.2f}]"


def share(rounds: list[dict[str, Figures]], name: str, key: tuple[str, int, int]) -> str:
    rows = [figures[name][key] for figures in rounds]
    reached = median(row["bandwidth_share"] for row in rows)
    return f"{median(row['host_share'] for row in rows):.1%}" + (f"; {reached:.0%}" if reached else "")


if __name__ == "__main__":
    main()
