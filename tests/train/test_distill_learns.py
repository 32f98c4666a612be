"""Slow: a student learns more from its teacher than from the text alone, in as many steps; and to stay near its teacher where it
goes by itself, more from being judged there than on the text.

The figures of docs/experiments.md: pytest -m slow tests/train/test_distill_learns.py -s
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from given import batch_of
from learning import SEEDS, Speaker, learn, play, tell, write
from made import tokenizer
from test_run import words  # noqa: F401  (a fixture)

from myna.data import Listed, Tokenized
from myna.records import Conversation
from myna.train.preference import answer_log_probs
from myna.train.run import begin, configure

TEXT = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt.gz"


def bits(run: Path) -> float:
    evals = [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "eval" in line]
    return float(evals[-1]["eval"]["bits_per_byte"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
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


SAYS = 40  # characters that go on after as many that are given
STEPS = 80


def passages(text: str) -> list[Conversation]:
    found = (text[at : at + 2 * SAYS] for at in range(0, len(text) - 2 * SAYS, 2 * SAYS))
    return [
        Conversation.of(("user", one[:SAYS]), ("assistant", one[SAYS:]))
        for one in found
        if one[:SAYS].strip() and one[SAYS:].strip()
    ]


@torch.no_grad()
def apart(student: Speaker, teacher: Speaker, asked: Sequence[Conversation]) -> float:
    """KL(student || teacher) in nats a token, over answers that the student draws by itself."""
    rolled = [one for (one,) in student.answers(asked, temperature=1.0, tokens=SAYS, seed=1)]
    prompts = [student.prompt(one) for one in asked]
    made = [
        (
            Tokenized(
                np.r_[ids, one.ids].astype(np.int64),
                np.r_[np.zeros(len(ids)), np.ones(len(one.ids))].astype(np.float32),
            ),
        )
        for ids, one in zip(prompts, rolled, strict=True)
    ]
    sums, counts = answer_log_probs(teacher.decoder.eval(), batch_of(Listed(made), context=128))
    return float((sum(sum(one.logprobs) for one in rolled) - sums.sum()) / counts.sum())


@pytest.mark.slow
def test_judged_on_its_own_answers_a_student_stays_nearer_to_its_teacher_than_judged_on_the_text(
    tmp_path: Path,
) -> None:
    text, made = play(), tokenizer(tmp_path / "words", vocab=267)
    held = passages(text[-50_000:])[:300]
    read, little = (write(tmp_path / f"{n}.jsonl", passages(text[:n])) for n in (400_000, 100_000))
    table = []
    for seed in SEEDS:
        same = f"--data.context 128 --run.rows 16 --run.epochs 0 --run.seed {seed}"
        new = f"{same} --model.tokenizer {made} --optim.lr 4e-3 --data.train"
        teacher = learn("sft", tmp_path / f"teacher-{seed}", f"{new} {read} --model.depth 2 --run.steps 150")
        start = learn("sft", tmp_path / f"start-{seed}", f"{new} {little} --model.depth 1 --run.steps 60")
        student = f"{same} --data.train {little} --model.start {start / 'model'} --run.steps {STEPS} --optim.lr 1e-3"
        judged = f"{student} --distill.teacher {teacher / 'model'} --distill.top_k 0 --distill.beta 1 --distill.max_tokens {SAYS}"
        runs = [start]
        for name, way in (
            ("text", "--distill.alpha 0"),
            ("off", ""),
            ("on", "--distill.on_policy true --distill.prompts 16"),
        ):
            runs.append(learn("distill", tmp_path / f"{name}-{seed}", f"{judged} {way}"))
        table.append([apart(Speaker.of(run), Speaker.of(teacher), held) for run in runs])
        tell(f"seed {seed}", *table[-1])
    before, of_text, off, on = np.array(table).T
    assert on.mean() < 0.95 * off.mean()
    assert off.mean() < min(before.mean(), of_text.mean())
