"""A run as a user starts it: from files to a model that answers, refused before anything is computed, and killed for real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from myna.model import load_model
from myna.modeldir import ModelDir, publish_adapter
from myna.modeldir.adapter import Written
from myna.modeldir.safetensors import read_safetensors
from myna.records import DataError, MynaError
from myna.train.compare import read_run, warnings
from myna.train.merge import merge_adapter
from myna.train.run import Ended, begin, configure, planned, resume
from myna.train.rundir import RunDir

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTROLS = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of single bytes, with a chat template."""
    folder = tmp_path_factory.mktemp("words")
    vocabulary = {c: i for i, c in enumerate([*CONTROLS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROLS)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    texts = [f"The {a} of {b} is {a}{b}. 诗" for a in "abcdefgh" for b in "ijklmnop"]
    turns = [[{"role": "user", "content": a}, {"role": "assistant", "content": a.upper() * 2}] for a in "abcdefghij"]
    rows = {
        "texts": [{"text": text} for text in texts[4:]],
        "held": [{"text": text} for text in texts[:4]],
        "chats": [{"messages": messages} for messages in turns],
        "pairs": [{"prompt": a, "chosen": a * 3, "rejected": a.upper()} for a in "abcdefghij"],
    }
    for name, made in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return {name: str(folder / f"{name}.jsonl") for name in rows}


def pretrain(words: Path, files: dict[str, str], out: Path, *more: str) -> Ended:
    flags = (
        f"--model.depth 1 --model.tokenizer {words} --data.train {files['texts']} --data.eval {files['held']} "
        f"--data.context 48 --run.rows 4 --run.steps 8 --run.save 3 --run.evaluate 4 --run.out {out}"
    )
    return begin(configure("pretrain", None, [*flags.split(), *more]))


def lines(run: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(ModelDir.open(run / "model"), "float32").state_dict()


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def base(words: Path, files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pretraining run."""
    out = tmp_path_factory.mktemp("runs") / "base"
    ended = pretrain(words, files, out, "--run.prompts", files["held"])
    assert ended == Ended(out, True, out / "model")
    return out


def test_a_run_leaves_everything_that_explains_it(base: Path) -> None:
    assert {p.name for p in base.iterdir()} >= {
        *(
            "checkpoints",
            "command.txt",
            "config.yaml",
            "data.json",
            "env.json",
            "log.jsonl",
            "model",
            "report.html",
            "samples",
            "tokens",
        )
    }
    steps = [line["step"] for line in lines(base) if "loss" in line]
    assert steps == [*range(8)]
    evals = [line for line in lines(base) if "eval" in line]
    assert [line["step"] for line in evals] == [4, 8]
    assert "bits_per_byte" in evals[0]["eval"]  # type: ignore[operator]
    assert (base / "samples/step-8.md").read_text().count("**goes on") == 4
    assert len(json.loads((base / "data.json").read_text())["audits"]) == 2


def test_the_model_is_one_that_everything_else_reads(base: Path) -> None:
    import transformers

    directory = ModelDir.open(base / "model")
    ours = load_model(directory, "float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base / "model")
    ids = torch.arange(20)[None] % ours.spec.vocab
    from myna.model import Causal

    with torch.no_grad():
        mine = ours.logits(ours(ids, torch.arange(20)[None], Causal()))
        torch.testing.assert_close(mine, theirs(ids).logits, atol=3e-5, rtol=3e-5)
    assert directory.lineage["parent"] == "depth 1"


def test_chats_are_learned_from_a_base_model(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.out {tmp_path / 'sft'}"
    )
    ended = begin(
        configure("sft", None, [*flags.split(), "--run.epochs", "8", "--run.rows", "1", "--optim.lr", "1e-3"])
    )
    assert ended.model
    found = [line["loss"] for line in lines(ended.run) if "loss" in line]
    assert found[-1] < found[0]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("base_kept", "kind"),
    [("float32", "lora"), ("stored", "lora"), ("nf4", "lora"), ("float32", "dora"), ("nf4", "dora")],
)
def test_adapters_are_trained_beside_weights_in_few_bits_and_merged(
    base_kept: str, kind: str, base: Path, files: dict[str, str], tmp_path: Path
) -> None:
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.out {tmp_path / 'run'}"
    )
    more = (
        f"--lora.rank 4 --lora.kind {kind} --lora.base {base_kept} --run.rows 1 --run.epochs 10 --optim.lr 1e-2".split()
    )
    ended = begin(configure("sft", None, [*flags.split(), *more]))
    assert ended.model
    found = [line["loss"] for line in lines(ended.run) if "loss" in line]
    assert found[-1] < 0.93 * found[0]  # type: ignore[operator]
    merged = merge_adapter(ended.model, "", tmp_path / "merged", "float32")
    assert Path(merged.base) == base / "model"
    assert merged.exact < 1e-4 < 1e-2 < merged.moved
    assert merged.saved == pytest.approx(merged.exact, abs=1e-6)
    assert ModelDir.open(merged.place).lineage["adapter"] == ended.model.name


def test_a_plan_is_of_exactly_the_run_that_follows(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.rows 4 --run.micro 2".split()
    config = configure("sft", None, [*flags, "--run.out", str(tmp_path / "run"), "--lora.rank", "4"])
    work = planned(config)
    assert not (tmp_path / "run/config.yaml").exists()
    ended = begin(config)
    assert [line["step"] for line in lines(ended.run) if "loss" in line] == [*range(work.steps)]
    assert (work.rows, work.micro, work.context) == (4, 2, 48)
    stored = read_safetensors(ended.run / "checkpoints" / f"step-{work.steps:06d}" / "weights.safetensors")
    assert work.trained == sum(one.count for one in stored.values())
    drawn = [*flags[:6], "--run.out", str(tmp_path / "other"), "--run.steps", "2"]
    for method in ("grpo --grpo.max_tokens 4", "mtp"):
        with pytest.raises(DataError, match=r"there is no plan for .* myna plan --model"):
            planned(configure(method.split()[0], None, [*drawn, *method.split()[1:]]))


def test_an_adapter_whose_model_is_gone_says_which_it_was(tmp_path: Path) -> None:
    modules = {"model.layers.0.self_attn.q_proj": Written(np.ones((1, 4)), np.ones((4, 1)), 1.0)}
    publish_adapter(tmp_path / "adapter", modules, {}, base="/gone/model")
    with pytest.raises(MynaError, match=r"beside /gone/model, which is not here\. Say where"):
        merge_adapter(tmp_path / "adapter", "", tmp_path / "merged", "float32")


def test_a_run_goes_on_from_an_adapter(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.rows 1 --optim.lr 1e-2"
    )
    found = []
    for name, more in (("one", "--lora.rank 4"), ("two", f"--lora.start {tmp_path / 'one/model'}")):
        ended = begin(configure("sft", None, [*f"{flags} {more} --run.epochs 10 --run.out {tmp_path / name}".split()]))
        assert ended.model
        found.append([line["loss"] for line in lines(ended.run) if "loss" in line])
    assert found[1][0] < 0.9 * found[0][0]  # type: ignore[operator]
    told = tmp_path / "one/model/adapter_config.json"
    told.write_text(told.read_text().replace('"lora_alpha": 16', '"lora_alpha": 17'))
    with pytest.raises(DataError, match=r"one/model/adapter_config\.json: not what this run began with"):
        resume(tmp_path / "two")


def test_a_tokenizer_that_grew_is_refused_before_anything_is_computed(
    base: Path, files: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(base / "model", tmp_path / "grown")
    (tmp_path / "grown/lineage.json").unlink()  # it knows the file that was
    told = json.loads((tmp_path / "grown/tokenizer.json").read_text())
    most = max(token["id"] for token in told["added_tokens"]) + len(told["model"]["vocab"]) + 1000
    told["added_tokens"].append({**told["added_tokens"][0], "id": most, "content": "<|sql|>"})
    (tmp_path / "grown/tokenizer.json").write_text(json.dumps(told))
    flags = f"--model.start {tmp_path / 'grown'} --data.train {files['chats']} --run.out {tmp_path / 'run'}".split()
    with pytest.raises(DataError, match=r"grown: its tokenizer knows .* tokens, and its embedding has .* rows"):
        begin(configure("sft", None, flags))


def test_weights_in_few_bits_are_not_trained_themselves(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = f"--model.start {base / 'model'} --data.train {files['chats']} --run.out {tmp_path} --lora.base nf4".split()
    with pytest.raises(DataError, match=r"Give --lora\.rank"):
        begin(configure("sft", None, flags))


def test_a_method_that_draws_its_answers_is_told_in_steps(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.out {tmp_path / 'run'}".split()
    for more, says in (
        ("--run.steps 0", r"run\.epochs|how long"),
        ("--run.steps 0 --run.epochs 2", r"run\.steps: grpo draws"),
        ("--run.epochs 2", r"run\.epochs: grpo draws"),
        ("--run.rows 4", r"run\.rows: a step of grpo learns from what grpo\.prompts draws"),
        ("--data.overlong drop", r"data\.overlong"),
    ):
        with pytest.raises(DataError, match=says):
            begin(configure("grpo", None, [*flags, *more.split()]))


def test_prompts_that_evaluate_are_not_trained_on_and_bad_ones_have_a_place(
    base: Path, files: dict[str, str], tmp_path: Path
) -> None:
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --grpo.max_tokens 4".split()
    )
    flags += ["--run.steps", "1", "--run.out", str(tmp_path / "run")]
    with pytest.raises(DataError, match=r"data\.eval: 'a' is asked in data\.train too, as are 9 more"):
        begin(configure("grpo", None, [*flags, "--data.eval", files["chats"]]))
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "assistant", "content": "a"}]}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1: .*nobody asks"):
        begin(configure("grpo", None, [*flags, "--data.eval", str(tmp_path / "bad.jsonl")]))


def test_texts_with_labels_are_audited_too(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"text {n % 9}", "label": "ab"[n % 9 % 2]} for n in range(12)] + [
        {"text": "long " * 30, "label": "a"}
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = f"--model.start {base / 'model'} --data.train {tmp_path / 'rows.jsonl'} --data.context 48 --run.steps 1"
    begin(configure("classify", None, [*flags.split(), "--data.overlong", "drop", "--run.out", str(tmp_path / "run")]))
    (said,) = (json.loads(line) for line in capsys.readouterr().err.splitlines() if '"data"' in line)
    assert (said["rows"], said["examples"]) == (13, 12)
    assert any("3 rows repeat another" in note for note in said["notes"])
    assert any("1 left out" in note for note in said["notes"])
    (audit,) = json.loads((tmp_path / "run/data.json").read_text())["audits"]
    assert audit["cuts"]["dropped"] == 1


def test_going_back_to_an_older_checkpoint_is_in_the_log(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "run")
    last = sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1] / "weights.safetensors"
    last.write_bytes(last.read_bytes()[:-9])
    resume(tmp_path / "run")
    (said,) = (line["event"] for line in lines(tmp_path / "run") if "event" in line)
    assert "went back to step-" in str(said)
    assert "cut short" in str(said)
    assert same(base, tmp_path / "run")


@pytest.mark.parametrize("ema", ["0", "0.5"])
def test_with_patience_the_model_is_that_of_the_best_evaluation(
    words: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], ema: str
) -> None:
    """As that of a run that ended there."""
    told = (
        f"--model.depth 1 --model.tokenizer {words} --data.train {files['texts']} --data.eval {files['held']} --data.context 48 "
        f"--run.rows 4 --run.evaluate 2 --optim.lr 0.1 --optim.schedule constant --optim.warmup 0 --optim.ema {ema} "
    )

    def run(name: str, more: str) -> Ended:
        return begin(configure("pretrain", None, f"{told} {more} --run.out {tmp_path / name}".split()))

    ended = run("run", "--run.steps 60 --run.patience 2")
    assert not ended.whole
    evals = {int(str(line["step"])): line["eval"]["loss"] for line in lines(ended.run) if "eval" in line}  # type: ignore[index]
    best, last = min(evals, key=lambda step: evals[step]), max(evals)
    assert last == best + 4
    short = run("short", f"--run.steps {best}")
    assert same(ended.run, short.run)
    assert ModelDir.open(ended.run / "model").lineage["step"] == best
    assert f"finished; the model is that after step {best}" in (ended.run / "report.html").read_text()
    said = [line["event"] for line in lines(ended.run) if "event" in line]
    assert ["stopped: no better than" in str(said[0]), f"is that after step {best}" in str(said[1])] == [True, True]
    assert str(said[1]) in capsys.readouterr().err
    log = lines(ended.run)
    assert resume(ended.run).model
    assert lines(ended.run) == log
    assert same(ended.run, short.run)
    shutil.rmtree(ended.run / f"checkpoints/step-{best:06d}")
    resume(ended.run)
    assert "the best is gone" in str(lines(ended.run)[-1]["event"])
    assert ModelDir.open(ended.run / "model").lineage["step"] == last


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_under_the_log_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(MynaError, match=rf"No space left.*myna train --resume {tmp_path}"):
        RunDir(tmp_path).log.append({"step": 1})


def test_one_process_trains_a_run_at_a_time(base: Path, words: Path, files: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "run")
    with RunDir(tmp_path / "run").alone(), pytest.raises(DataError, match="another process is training this run"):
        resume(tmp_path / "run")
    with RunDir(tmp_path / "new").alone(), pytest.raises(DataError, match="another process is training this run"):
        pretrain(words, files, tmp_path / "new")
    assert resume(tmp_path / "run").whole
    assert pretrain(words, files, tmp_path / "new").whole


def test_a_folder_that_holds_something_else_is_not_written_into(
    words: Path, files: dict[str, str], tmp_path: Path
) -> None:
    for name in ("notes.txt", "model"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(DataError, match=rf"{name}.* is in it"):
            pretrain(words, files, out)
        assert [p.name for p in out.iterdir()] == [name]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file: is a file"):
        pretrain(words, files, tmp_path / "file")


def test_what_a_start_that_failed_left_behind_is_no_hindrance(
    words: Path, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        pretrain(words, {**files, "texts": str(tmp_path / "bad.jsonl")}, tmp_path / "run")
    assert pretrain(words, files, tmp_path / "run").whole


def test_weights_that_are_no_numbers_are_no_model(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    """Fewer steps are left than end a run that has come to nothing."""
    flags = f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.rows 2 --run.steps 3"
    more = f"--optim.lr 3e38 --optim.schedule constant --optim.warmup 0 --run.out {tmp_path / 'run'}"
    with pytest.raises(MynaError, match=r"are no numbers after step 3.*optim\.lr"):
        begin(configure("sft", None, [*flags.split(), *more.split()]))
    assert not (tmp_path / "run/model").exists()
    assert not (tmp_path / "run/checkpoints").exists()
    assert "failed: the weights" in str(lines(tmp_path / "run")[-1]["event"])
    assert "no numbers" in (tmp_path / "run/report.html").read_text()


def test_an_adapter_is_what_training_small_matrices_leaves(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    import peft
    import transformers

    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.out {tmp_path / 'lora'}"
    )
    more = ["--lora.rank", "2", "--run.rows", "1", "--run.epochs", "8", "--optim.lr", "1e-2", "--lora.kind", "rslora"]
    ended = begin(configure("sft", None, [*flags.split(), *more]))
    assert ended.model
    assert {p.name for p in ended.model.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    model = transformers.AutoModelForCausalLM.from_pretrained(base / "model")
    plain = model(torch.arange(9)[None]).logits
    theirs = peft.PeftModel.from_pretrained(model, ended.model)
    assert not torch.allclose(theirs(torch.arange(9)[None]).logits, plain, atol=1e-3)


@pytest.mark.parametrize(
    "method", ["dpo", "grpo", *(pytest.param(m, marks=pytest.mark.slow) for m in ("pretrain", "sft", "distill"))]
)
def test_killed_at_any_moment_and_resumed_is_never_stopped(
    method: str, base: Path, words: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """A process of its own and kill -9. What a kill in the process itself can show, test_resume_every.py asks of every method."""
    start = f"--model.depth 1 --model.tokenizer {words}" if method == "pretrain" else f"--model.start {base / 'model'}"
    train = files[{"pretrain": "texts", "dpo": "pairs"}.get(method, "chats")]
    if method == "grpo":
        rows = [{"messages": [{"role": "user", "content": c}], "target": "a"} for c in "abcd"]
        (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        train = str(tmp_path / "asked.jsonl")
        start += " --grpo.prompts 2 --grpo.group 2 --grpo.max_tokens 6 --grpo.check contains --grpo.updates 2 --optim.lr 1e-3"
    if method == "distill":
        start += f" --distill.teacher {base / 'model'} --distill.top_k 9 --distill.alpha 0.5"
    start += "" if method == "grpo" else " --run.rows 4"
    flags = f"{start} --data.train {train} --data.context 48 --run.steps 12 --run.save 2 --run.out".split()
    whole = begin(configure(method, None, [*flags, str(tmp_path / "whole")]))
    command = [sys.executable, "-m", "myna", "train", method, *flags, str(tmp_path / "cut")]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
    while not (tmp_path / "cut/checkpoints/step-000004").exists() and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    ended = resume(tmp_path / "cut")
    assert ended.whole
    assert same(whole.run, ended.run)
    assert lines(whole.run) == lines(ended.run)


def test_a_run_goes_on_only_as_it_began(base: Path, words: Path, files: dict[str, str], tmp_path: Path) -> None:
    mine = tmp_path / "texts.jsonl"
    mine.write_text(Path(files["texts"]).read_text())
    out = tmp_path / "run"
    pretrain(words, files | {"texts": str(mine)}, out)
    with pytest.raises(DataError, match=r"another optim\.lr"):
        resume(out, ["--optim.lr", "1"])
    assert resume(out, ["--run.keep", "5"]).whole  # changes nothing that is computed
    mine.write_text(mine.read_text() + '{"text": "more"}\n')
    with pytest.raises(DataError, match=r"texts\.jsonl: not what this run began with"):
        resume(out)
    with pytest.raises(DataError, match="Go on with it"):
        pretrain(words, files, out)
    with pytest.raises(DataError, match="holds no run"):
        resume(tmp_path)


def test_a_run_that_goes_on_changed_says_what_it_was_until_when(
    words: Path, files: dict[str, str], tmp_path: Path
) -> None:
    mine, out = tmp_path / "texts.jsonl", tmp_path / "run"
    mine.write_text(Path(files["texts"]).read_text())
    pretrain(words, files | {"texts": str(mine)}, out, "--run.keep", "9")
    began = yaml.safe_load((out / "config.yaml").read_text())["optim"]["lr"]

    def back_to(step: int) -> None:
        for later in (p for p in (out / "checkpoints").glob("step-*") if p.name > f"step-{step:06d}"):
            shutil.rmtree(later)

    back_to(3)
    mine.write_text(mine.read_text() + '{"text": "more"}\n')
    assert resume(out, ["--optim.lr", "1e-4", "--optim.schedule", "constant"], changed=True).whole
    back_to(3)  # as if it had been killed before it was saved again
    assert resume(out).whole
    assert [line["lr"] for line in lines(out) if "loss" in line][3:] == [1e-4] * 5
    assert yaml.safe_load((out / "config.yaml").read_text())["optim"]["lr"] == 1e-4
    assert yaml.safe_load((out / "config-until-step-3.yaml").read_text())["optim"]["lr"] == began
    now, then = (json.loads((out / name).read_text())["files"] for name in ("data.json", "data-until-step-3.json"))
    assert now[str(mine)] != then[str(mine)]
    (event,) = (line for line in lines(out) if "event" in line)
    assert event == {
        "step": 3,
        "event": f"from here on optim.lr is 0.0001, was {began}; optim.schedule is 'constant', was 'wsd'; {mine} is another file",
    }
    assert len((out / "command.txt").read_text().splitlines()) == 2
    back_to(6)
    assert resume(out, ["--run.keep", "2"]).whole
    assert RunDir.open(out).changed == [3, 6]
    assert warnings([read_run(out)])[0].startswith("run was changed after step 3, 6")
    (out / "config-until-step-3.yaml").unlink()  # so that it was changed after step 6 alone
    (out / "data-until-step-3.json").unlink()
    back_to(0)  # as if all had been cut short
    assert resume(out).whole
    assert RunDir.open(out).changed == [0]
    assert [line for line in lines(out) if "event" in line] == [
        {"step": 0, "event": "from here on run.keep is 2, was 9"}
    ]


def test_a_run_goes_on_only_beside_the_weights_and_the_template_it_began_with(
    base: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """An adapter's base is not in its checkpoints."""
    shutil.copytree(base / "model", tmp_path / "base")
    flags = (
        f"--model.start {tmp_path / 'base'} --data.train {files['chats']} --data.context 48 --lora.rank 2 --run.steps 2"
    )
    begin(configure("sft", None, [*flags.split(), "--run.out", str(tmp_path / "run")]))
    template = tmp_path / "base/chat_template.jinja"
    template.write_text(TEMPLATE.replace("{{ m.role }}|", "{{m.role }} |"))  # as long as before
    with pytest.raises(DataError, match=r"the template: not what this run began with"):
        resume(tmp_path / "run")
    template.write_text(TEMPLATE)
    stored = tmp_path / "base/model.safetensors"
    stored.write_bytes(stored.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"base/model\.safetensors: not what this run began with"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", changed=True).whole


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--run.out {out} --data.train {texts}", "neither is given"),
        ("--run.out {out} --model.depth 1 --data.train {texts}", "needs a tokenizer"),
        ("--run.out {out} --model.depth 1 --model.start x --data.train {texts}", "both are given"),
        ("--run.out {out} --model.depth 1 --model.tokenizer {words}", "names no file"),
        (
            "--run.out {out} --model.depth 1 --model.tokenizer {words} --lora.rank 2 --data.train {texts}",
            "beside a model",
        ),
        ("--run.out {out} --model.depth 1 --model.tokenizer {words} --data.train nowhere.jsonl", "nowhere.jsonl"),
        ("--model.depth 1 --model.tokenizer {words} --data.train {texts}", "where shall the run be kept"),
        (
            "--run.out {out} --model.depth 1 --model.tokenizer {words} --data.train {texts} --data.eval {texts}",
            "which evaluates it",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(
    flags: str, says: str, words: Path, files: dict[str, str], tmp_path: Path
) -> None:
    told = flags.format(out=tmp_path / "run", words=words, **files).split()
    with pytest.raises(MynaError, match=says):
        begin(configure("pretrain", None, told))
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_long_row_is_an_error_unless_told_otherwise(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 5 --run.out {tmp_path}".split()
    )
    with pytest.raises(DataError, match=r"chats\.jsonl:1"):
        begin(configure("sft", None, flags))


def test_a_teacher_of_another_tokenizer_is_refused(base: Path, files: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(base / "model", tmp_path / "other")
    told = json.loads((tmp_path / "other/tokenizer.json").read_text())
    vocab = told["model"]["vocab"]
    vocab["A"], vocab["B"] = vocab["B"], vocab["A"]
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(told))
    (tmp_path / "other/lineage.json").unlink()
    flags = (
        f"--model.start {base / 'model'} --data.train {files['chats']} --data.context 48 --run.out {tmp_path / 'run'}"
    )
    with pytest.raises(DataError, match="is not that of the student"):
        begin(configure("distill", None, [*flags.split(), "--distill.teacher", str(tmp_path / "other")]))
    with pytest.raises(DataError, match="who teaches"):
        begin(configure("distill", None, flags.split()))
