"""Reading safetensors: the reference package writes and is the oracle; damaged and hostile files are refused."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from myna.modeldir.safetensors import read_safetensors
from myna.records import ModelDirError

KINDS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("safetensors") / "good.safetensors"
    torch.manual_seed(0)
    tensors = {kind: torch.randint(0, 2, (3, 4)).to(dtype) for kind, dtype in KINDS.items()}
    tensors |= {"vector": torch.randn(5), "stack": torch.randn(2, 3, 4), "scalar": torch.tensor(1.5)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_tensors_equal_the_reference_packages(good: Path) -> None:
    ours = read_safetensors(good)
    with safetensors.safe_open(good, "pt") as theirs:
        assert set(ours) == set(theirs.keys())
        for name, stored in ours.items():
            tensor = theirs.get_tensor(name)
            assert stored.shape == tuple(tensor.shape)
            assert stored.kind == (name if name in KINDS else "F32")
            assert stored.data.tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_data_is_rows_of_bytes_from_two_dimensions_on(good: Path) -> None:
    shapes = {name: stored.data.shape for name, stored in read_safetensors(good).items()}
    assert (shapes["F32"], shapes["stack"], shapes["vector"], shapes["scalar"]) == ((3, 16), (6, 16), (20,), (4,))


def test_what_is_mapped_cannot_be_written(good: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        read_safetensors(good)["F32"].data[0] = 1


def test_a_file_cut_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    whole, cut = good.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 3):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelDirError, match=r"cut\.safetensors"):
            read_safetensors(cut)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1300), value=st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused_but_never_crashes(good: Path, tmp_path: Path, at: int, value: int) -> None:
    data = bytearray(good.read_bytes())
    data[at] = value
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    try:
        found = read_safetensors(path)
    except ModelDirError:
        return
    assert sum(stored.nbytes for stored in found.values()) < len(data)


def entry(shape: Any = (2,), begin: Any = 0, end: Any = 8, kind: Any = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


HOSTILE: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{nope", 0, "not JSON"),
    "deep JSON": (b"[" * 200_000, 0, "not JSON"),
    "a list": ([], 0, "not a JSON object"),
    "twice": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":1}', 8, "appears twice"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8, "needs dtype"),
    "unknown dtype": ({"a": entry(kind="F13")}, 8, "'F13' is not supported"),
    "dtype is a list": ({"a": entry(kind="Q4_K")}, 8, "is not supported"),
    "negative": ({"a": entry([-2])}, 8, "not a shape"),
    "fractions": ({"a": entry([2.0])}, 8, "not a shape"),
    "true": ({"a": entry([True, 2])}, 8, "not a shape"),
    "no rows": ({"a": entry([0, 5], 0, 0)}, 0, "holds no number"),
    "absurd": ({"a": entry([2**62, 2**62])}, 8, "does not fill"),
    "many dimensions": ({"a": entry([1] * 99)}, 8, "not a shape"),
    "backwards": ({"a": entry(begin=8, end=0)}, 8, "pair of offsets"),
    "wrong product": ({"a": entry([3])}, 8, "does not fill"),
    "overlap": ({"a": entry(), "b": entry(begin=4, end=12)}, 12, "overlaps"),
    "gap": ({"a": entry(), "b": entry(begin=12, end=20)}, 20, "unused bytes"),
    "outside": ({"a": entry(), "b": entry(begin=8, end=16)}, 8, "is cut"),
    "left over": ({"a": entry()}, 99, "belong to nothing"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_by_name(case: str, tmp_path: Path) -> None:
    header, size, says = HOSTILE[case]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    with pytest.raises(ModelDirError, match=rf"bad\.safetensors.*{says}"):
        read_safetensors(path)


def test_a_header_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**40))
        file.truncate(2**41)  # sparse: the length would be in range of the file
    with pytest.raises(ModelDirError, match=r"claims a header of 1099511627776 bytes"):
        read_safetensors(path)


def test_a_name_given_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    """Comparing every name with every other took 70 s here."""
    text = ("{" + "".join(f'"t{i}":0,' for i in range(60_000)) + '"z":0,"z":0}').encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelDirError, match="'z' appears twice"):
        read_safetensors(path)


def test_numpy_sees_the_numbers(good: Path) -> None:
    stored = read_safetensors(good)["vector"]
    assert np.isfinite(stored.data.view(np.float32)).all()
