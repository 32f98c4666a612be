"""What is packed is kept beside the model, used only while it is exactly what would be packed again, and harms nobody."""

import fcntl
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from myna.modeldir import list_models, packed_bytes, publish
from myna.modeldir.packed import SPARE, Packed
from myna.modeldir.safetensors import LARGE_PAGE
from myna.modeldir.stored import Source

TENSORS = {
    "norm.weight": np.arange(5, dtype=np.float32),
    "embed.packed": np.arange(192, dtype=np.uint8),
    "head.packed": np.arange(64, dtype=np.uint8)[::-1].copy(),
}
WANTED = {"norm.weight": ("F32", (5,)), "embed.packed": ("U8", (192,)), "head.packed": ("U8", (64,))}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.gguf").write_bytes(b"weights")
    return tmp_path / "model"


def packed(model: Path, precision: str = "int8", maker: str = "this code") -> Packed:
    return Packed.of(model, (Source.of(model / "model.gguf"),), precision, maker)


def same(found: dict[str, np.ndarray] | None) -> bool:
    return found is not None and all(np.array_equal(found[name], TENSORS[name]) for name in TENSORS)


def test_what_is_kept_is_read_back_and_is_a_safetensors_file(model: Path) -> None:
    packed(model).write(TENSORS)
    assert same(packed(model).read(WANTED))
    assert same(load_file(model / "packed" / "int8.safetensors"))
    assert [file.name for file in (model / "packed").iterdir()] == ["int8.safetensors"]


def test_tensors_longer_and_shorter_than_a_stretch_are_written_whole(model: Path) -> None:
    random = np.random.default_rng(0)
    sizes = {"a": LARGE_PAGE + 1, "b": 3, "d": 2 * LARGE_PAGE - 700, "e": 5 * LARGE_PAGE}
    tensors = {name: random.integers(0, 256, size, np.uint8) for name, size in sizes.items()}
    packed(model).write(tensors)
    found = packed(model).read({name: ("U8", tensor.shape) for name, tensor in tensors.items()})
    assert found is not None
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


def test_packed_tensors_begin_with_a_cache_line(model: Path) -> None:
    packed(model).write(TENSORS)
    found = packed(model).read(WANTED)
    assert found is not None
    assert all(found[name].ctypes.data % 64 == 0 for name in TENSORS if name.endswith("packed"))


def test_writing_to_what_was_read_changes_nobody_elses(model: Path) -> None:
    packed(model).write(TENSORS)
    found = packed(model).read(WANTED)
    assert found is not None
    found["embed.packed"][:] = 7
    assert same(packed(model).read(WANTED))


def test_any_damaged_byte_is_noticed(model: Path) -> None:
    packed(model).write(TENSORS)
    file = model / "packed" / "int8.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(header), *range(header, len(whole), 5)]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = packed(model).read(WANTED)
        assert found is None or same(found), f"byte {at}"
    for other in (whole[:-1], whole + b"\0", whole[:7], b""):
        file.write_bytes(other)
        assert packed(model).read(WANTED) is None


def test_other_weights_another_precision_or_other_code_are_not_taken_for_these(model: Path) -> None:
    packed(model).write(TENSORS)
    assert packed(model, "int4").read(WANTED) is None
    assert packed(model, maker="other code").read(WANTED) is None
    stat = (model / "model.gguf").stat()
    (model / "model.gguf").write_bytes(b"WEIGHTS")  # in place: the same size and inode, and the same time of writing
    os.utime(model / "model.gguf", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert packed(model).read(WANTED) is None


@pytest.mark.parametrize(
    "changed", [{"norm.weight": ("F32", (1, 5))}, {"head.packed": ("F32", (64,))}, {"more": ("U8", (1,))}]
)
def test_other_names_shapes_or_kinds_are_not_taken_for_these(model: Path, changed: dict) -> None:
    packed(model).write(TENSORS)
    assert packed(model).read(WANTED | changed) is None


def test_where_the_model_cannot_be_written_the_users_cache_keeps_it(model: Path) -> None:
    (model / "packed").write_text("a file is in the way, as good as no permission")
    packed(model).write(TENSORS)
    assert same(packed(model).read(WANTED))
    assert set(packed_bytes(model)) == {"int8"}
    assert [file.name for file in model.iterdir() if file.is_dir()] == []


def test_a_link_is_not_followed(model: Path, tmp_path: Path) -> None:
    """A model directory is a stranger's: what it links to is not ours to write, read or tidy."""
    (tmp_path / "elsewhere").mkdir()
    (model / "packed").symlink_to(tmp_path / "elsewhere")
    packed(model).write(TENSORS)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert same(packed(model).read(WANTED))


def test_nowhere_to_write_is_a_warning(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "packed").write_text("")
    (model.parent / "home").write_text("")
    packed(model).write(TENSORS)
    assert "packed weights cannot be kept" in caplog.text


@pytest.mark.parametrize("when", ["before", "while writing"])
def test_a_full_disk_is_a_warning_and_leaves_nothing(
    model: Path, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if when == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, SPARE))
    else:
        monkeypatch.setattr(os, "fsync", full)
    packed(model).write(TENSORS)
    assert "cannot be kept" in caplog.text
    assert [file for folder in packed(model).folders for file in folder.glob("*")] == []


def test_while_another_process_writes_it_is_left_alone(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "packed").mkdir()
    partial = model / "packed" / "int8.safetensors.partial"
    with open(partial, "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"half" * 1000)
        other.flush()
        with caplog.at_level(logging.WARNING):
            packed(model).write(TENSORS)
        assert partial.read_bytes() == b"half" * 1000
    assert caplog.text == ""
    packed(model).write(TENSORS)  # it died: its half is no hindrance
    assert same(packed(model).read(WANTED))
    assert not partial.exists()


def test_what_another_process_has_just_finished_is_left_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening the partial file and our lock it got its name."""
    (model / "packed").mkdir()
    partial, done = (model / "packed" / f"int8.safetensors{tail}" for tail in (".partial", ""))
    partial.write_bytes(b"theirs")
    monkeypatch.setattr(fcntl, "flock", lambda *_: partial.rename(done))
    packed(model).write(TENSORS)
    assert done.read_bytes() == b"theirs"


def test_one_file_a_precision_and_none_of_weights_that_are_no_more(model: Path) -> None:
    for precision in ("int8", "int4"):
        packed(model, precision).write(TENSORS)
    strange = model / "packed" / "mine.safetensors"
    shutil.copy(model / "packed" / "int8.safetensors", strange)
    data = strange.read_bytes()
    strange.write_bytes(data.replace(b'"key":', b'"kee":'))  # somebody else's file has no key of ours
    assert set(packed_bytes(model)) == {"int8", "int4", "mine"}
    (model / "model.gguf").write_bytes(b"other weights")
    packed(model, "int4").write(TENSORS)
    assert set(packed_bytes(model)) == {"int4", "mine"}


def test_a_model_directory_that_is_gone_does_not_come_back(model: Path) -> None:
    here = packed(model)
    shutil.rmtree(model)
    here.write(TENSORS)
    assert not model.exists()


def test_replacing_a_model_drops_what_was_packed_of_it(model: Path) -> None:
    packed(model).write(TENSORS)
    publish(model, lambda place: (place / "model.gguf").write_bytes(b"new"), {}, replace=True, check=lambda _: None)
    assert packed_bytes(model) == {}
    assert not (model / "packed").exists()


def test_lists_do_not_count_it_as_the_model(tmp_path: Path) -> None:
    place = tmp_path / "home" / "models" / "tiny"
    place.mkdir(parents=True)
    (place / "model.gguf").write_bytes(b"weights")
    packed(place).write(TENSORS)
    assert [(listed.name, listed.nbytes) for listed in list_models()] == [("tiny", len(b"weights"))]
