"""Sets that others made, as `myna redteam --set` reads them.

    python bench/redteam_sets.py ../shared/data OUT         writes OUT/xstest.jsonl, donotanswer.jsonl, advbench.jsonl
    myna redteam MODEL --set OUT/xstest.jsonl --limit 50

XSTest (Röttger et al. 2024) has both halves: prompts that only look unsafe, and their unsafe contrasts. Do-Not-Answer (Wang et al.
2024) and AdvBench (Zou et al. 2023) have one, and `myna redteam` adds our own harmless cases to them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from myna.apps.redteam import Case
from myna.records.jsonl import read_rows


def xstest(row: Any) -> dict[str, str]:
    kind = "benign" if row["label"] == "safe" else "harmful"
    return {"id": f"xstest-{row['id']}", "kind": kind, "category": row["type"], "prompt": row["prompt"]}


def donotanswer(row: Any) -> dict[str, str]:
    return {"kind": "harmful", "category": row["area"], "prompt": row["prompt"]}


def advbench(row: Any) -> dict[str, str]:
    return {"kind": "harmful", "category": "advbench", "prompt": row["goal"]}


SETS: dict[str, Callable[[Any], dict[str, str]]] = {"xstest": xstest, "donotanswer": donotanswer, "advbench": advbench}


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, convert in SETS.items():
        rows = [{**convert(row), "language": "en"} for _, row in read_rows(data / name / "dev.jsonl.gz")]
        for row in rows:
            Case.from_json(row)
        (out / f"{name}.jsonl").write_bytes(
            b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        )
        print(f"{out / name}.jsonl: {len(rows)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
