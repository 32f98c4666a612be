"""Slow: a student learns more from its teacher than from the text alone, in as many steps."""

import gzip
import json
from pathlib import Path

import pytest
from test_run import words  # noqa: F401  (a fixture)

from myna.train.run import begin, configure

TEXT = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt.gz"


def bits(run: Path) -> float:
    evals = [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "eval" in line]
    return float(evals[-1]["eval"]["bits_per_byte"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_student_learns_more_from_its_teacher_than_from_the_text_alone(
    seed: int,
    words: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    if not TEXT.exists():
        pytest.skip(f"{TEXT} is not here")
    text = gzip.decompress(TEXT.read_bytes()).decode()
    # 200 kB for the teacher, 40 kB for the student: little text is where a teacher has something to add.
    parts = {"teacher": text[:200_000], "student": text[:40_000], "held": text[-30_000:]}
    for name, part in parts.items():
        rows = [part[at : at + 1000] for at in range(0, len(part), 1000)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    both = f"--data.eval {tmp_path}/held.jsonl --data.context 128 --run.rows 16 --run.seed {seed} --model.tokenizer {words}"
    teacher = begin(configure("pretrain", None, (
        f"{both} --model.depth 2 --data.train {tmp_path}/teacher.jsonl --run.steps 400 --optim.lr 3e-3 --run.out {tmp_path}/teacher"
    ).split()))  # fmt: skip
    student = f"{both} --model.depth 1 --data.train {tmp_path}/student.jsonl --run.steps 150 --optim.lr 3e-3"
    found = {"teacher": bits(teacher.run)}
    ways = {"hard": "--distill.alpha 0", "kept 32": "--distill.top_k 32", "jsd": "--distill.top_k 0 --distill.beta 0.5"}
    for name, way in ways.items():
        out = tmp_path / name.replace(" ", "-")
        flags = f"{student} {way} --distill.teacher {teacher.model} --run.out {out}"
        found[name] = bits(begin(configure("distill", None, flags.split())).run)
    print(f"\nseed {seed}: bits per byte " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    assert found["kept 32"] < found["hard"]
