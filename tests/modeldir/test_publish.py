"""Publishing: whole or not at all, whenever the process dies."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from myna.modeldir import ModelDir, publish, verify
from myna.records import ModelDirError

module = sys.modules["myna.modeldir.publish"]
CONFIG = {"model_type": "llama", "vocab_size": 8, "hidden_size": 4}


def writer(value: int, files: int = 3):
    """A builder of a model whose every part says `value`."""

    def build(directory: Path) -> None:
        (directory / "config.json").write_text(json.dumps({**CONFIG, "value": value}))
        save_file({"model.embed_tokens.weight": np.full((8, 4), value, np.float32)}, directory / "model.safetensors")
        for i in range(files):
            (directory / f"part{i}.txt").write_text(str(value) * 1000)

    return build


def value_of(place: Path) -> int:
    """The value a directory was built with; fails if its parts are of two builds."""
    model = ModelDir.open(place)
    verify(place)
    value = model.config["value"]
    assert (model.weights["model.embed_tokens.weight"].data.view("<f4") == value).all()
    assert all(file.read_text() == str(value) * 1000 for file in place.glob("part*.txt"))
    return value


def test_publish_writes_lineage_and_leaves_nothing_beside(tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {"command": ["test"], "licence": "MIT"})
    lineage = ModelDir.open(place).lineage
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    assert (lineage["command"], lineage["licence"]) == (["test"], "MIT")
    assert set(lineage["files"]) == {f.name for f in place.iterdir()} - {"lineage.json"}
    assert lineage["date"].endswith("+00:00")


def test_an_existing_directory_is_replaced_only_when_asked(tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    with pytest.raises(ModelDirError, match=rf"{place} exists"):
        publish(place, writer(2), {})
    assert value_of(place) == 1
    publish(place, writer(2), {}, replace=True)
    assert (value_of(place), [entry.name for entry in tmp_path.iterdir()]) == (2, ["m"])


def test_a_build_that_does_not_open_is_not_published(tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    with pytest.raises(ModelDirError, match="holds no weights"):
        publish(place, lambda d: (d / "config.json").write_text("{}") and None, {}, replace=True)
    assert value_of(place) == 1


def test_what_a_dead_builder_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "m.partial" / "deep").mkdir(parents=True)
    (tmp_path / "m.partial" / "deep" / "junk").write_text("x")
    place = publish(tmp_path / "m", writer(1), {})
    assert (value_of(place), (place / "deep").exists()) == (1, False)


def test_two_builders_of_one_name_do_not_mix(tmp_path: Path) -> None:
    def build(directory: Path) -> None:
        with pytest.raises(ModelDirError, match="another process is writing"):
            publish(tmp_path / "m", writer(2), {})
        writer(1)(directory)

    assert value_of(publish(tmp_path / "m", build, {})) == 1


def test_verify_finds_a_changed_byte(tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    text = (place / "part1.txt").read_text()
    (place / "part1.txt").write_text("9" + text[1:])
    ModelDir.open(place)  # sizes agree
    with pytest.raises(ModelDirError, match=r"part1\.txt: sha256 is"):
        verify(place)


def test_open_finds_a_changed_size_and_a_missing_file(tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    (place / "part1.txt").write_text("short")
    with pytest.raises(ModelDirError, match=r"part1\.txt: 5 bytes; lineage\.json says 1000"):
        ModelDir.open(place)
    (place / "part1.txt").unlink()
    with pytest.raises(ModelDirError, match=r"lacks part1\.txt"):
        ModelDir.open(place)


@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_without_an_atomic_swap_a_crash_is_mended(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two renames that stand in for a swap, interrupted at each border."""
    place = publish(tmp_path / "m", writer(1), {})
    monkeypatch.setattr(module, "_exchange", lambda a, b: False)
    real, calls = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == {"before": 1, "between": 2, "after": 3}[step]:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with contextlib.suppress(KeyboardInterrupt):
        publish(place, writer(2), {}, replace=True)
    monkeypatch.undo()
    module.settle(place)
    assert value_of(place) == (2 if step == "after" else 1)


def test_looking_while_somebody_swaps_by_renames_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    monkeypatch.setattr(module, "_exchange", lambda a, b: False)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        module.settle(place)  # as `find` and `list_models` do, at each border
        done = real(self, target)
        module.settle(place)
        return done

    monkeypatch.setattr(Path, "rename", rename)
    publish(place, writer(2), {}, replace=True)
    monkeypatch.undo()
    assert (value_of(place), [entry.name for entry in tmp_path.iterdir()]) == (2, ["m"])


KILLED = """
import json, sys, itertools
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_publish import writer, module
from myna.modeldir import publish
if sys.argv[3] == "renames":
    module._exchange = lambda a, b: False
for value in itertools.count(2):
    publish(Path(sys.argv[1]), writer(value), {}, replace=True)
    print(value, flush=True)
"""


@pytest.mark.parametrize("how", ["swap", "renames"])
def test_killed_at_any_moment_it_leaves_the_old_or_the_new(how: str, tmp_path: Path) -> None:
    place = publish(tmp_path / "m", writer(1), {})
    dice = random.Random(0)
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(place), str(Path(__file__).parent), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()  # it is publishing in a loop now
            for _ in range(6):  # look while it runs: a reader never sees a mixture either
                time.sleep(dice.uniform(0, 0.02))
                with contextlib.suppress(ModelDirError, OSError):  # a file vanished between two reads: that is noticed
                    ModelDir.open(place)
            process.send_signal(signal.SIGKILL)
            said = [int(line) for line in process.stdout]
        module.settle(place)
        value = value_of(place)
        assert not said or value in (said[-1], said[-1] + 1)
