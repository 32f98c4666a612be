"""Reading the GGUF container: the gguf package writes and is the oracle; damaged and hostile files are refused."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna.modeldir.gguf import BLOCKS, GGUF, all_blocks
from myna.records import ModelDirError

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of value, and a tensor of every type the gguf package knows."""
    path = tmp_path_factory.mktemp("gguf") / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -1)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -2)
    writer.add_uint32("a.u32", 2**32 - 1)
    writer.add_int32("a.i32", -3)
    writer.add_uint64("a.u64", 2**63)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float32("a.f32", 1.5)
    writer.add_float64("a.f64", 1e300)
    writer.add_bool("a.yes", True)
    writer.add_string("a.text", "古池や蛙飛びこむ水の音")
    writer.add_array("a.words", ["", "é", "🐦", "x" * 1000])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_array("a.floats", [0.5, 0.25])
    random = np.random.default_rng(0)
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        shape = (3, 2 * block // block * size)
        writer.add_tensor(f"t.{kind.name}", random.integers(0, 256, shape, dtype=np.uint8), raw_dtype=kind)
    writer.add_tensor("t.stack", random.normal(size=(2, 3, 5)).astype(np.float32))
    writer.add_tensor("t.vector", random.normal(size=7).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_tensors_equal_the_gguf_packages(good: Path) -> None:
    ours, theirs = GGUF(good), gguf.GGUFReader(good)
    metadata = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == metadata
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        span = ours.tensors[tensor.name]
        assert (span.kind, span.shape) == (tensor.tensor_type.name, tuple(reversed(tensor.shape.tolist())))
        assert ours.bytes_of(span).tobytes() == tensor.data.tobytes()


def test_block_sizes_written_down_are_the_gguf_packages() -> None:
    assert all(all_blocks()[number] == block for number, block in BLOCKS.items())


def test_a_file_cut_anywhere_is_refused(good: Path, tmp_path: Path) -> None:
    whole = good.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, 2500, 7), *range(2500, len(whole), 997), len(whole) - 32]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelDirError, match=r"cut\.gguf"):
            GGUF(cut)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2600), value=st.integers(0, 255), run=st.integers(1, 8))
def test_a_damaged_header_is_read_or_refused_but_never_crashes(
    good: Path, tmp_path: Path, at: int, value: int, run: int
) -> None:
    data = bytearray(good.read_bytes())
    data[at : at + run] = bytes([value]) * run
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    try:
        found = GGUF(path)
    except ModelDirError:
        return
    for span in found.tensors.values():
        assert found.bytes_of(span).nbytes == span.nbytes


def header(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + U32.pack(version) + U64.pack(tensors) + U64.pack(keys) + rest


def text(value: str) -> bytes:
    return U64.pack(len(value.encode())) + value.encode()


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + U32.pack(len(dims)) + b"".join(map(U64.pack, dims)) + U32.pack(kind) + U64.pack(offset)


HUGE = 2**62
HOSTILE = {
    "not GGUF": (b"GGML" + bytes(40), "not GGUF"),
    "big endian": (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
    "version 1": (header(0, 0, bytes(16), version=1), "version 1"),
    "too many tensors": (header(HUGE, 0), "at most"),
    "too many keys": (header(0, HUGE), "at most"),
    "endless key": (header(0, 1, U64.pack(HUGE)), "name of"),
    "endless string": (header(0, 1, text("k") + U32.pack(8) + U64.pack(HUGE)), "cut or damaged"),
    "endless array": (header(0, 1, text("k") + U32.pack(9) + U32.pack(4) + U64.pack(HUGE)), "cut or damaged"),
    "endless words": (header(0, 1, text("k") + U32.pack(9) + U32.pack(8) + U64.pack(HUGE)), "cut or damaged"),
    "array of arrays": (header(0, 1, text("k") + U32.pack(9) + U32.pack(9) + U64.pack(1)), "array of value type 9"),
    "unknown value": (header(0, 1, text("k") + U32.pack(77) + bytes(8)), "value type 77"),
    "key twice": (header(0, 2, 2 * (text("k") + U32.pack(0) + b"\1")), "twice"),
    "not UTF-8": (header(0, 1, U64.pack(2) + b"\xff\xfe" + bytes(20)), "UTF-8"),
    "no dimensions": (header(1, 0, tensor("t", ())), "dimensions"),
    "many dimensions": (header(1, 0, tensor("t", (1,) * 9)), "dimensions"),
    "absurd shape": (header(1, 0, tensor("t", (HUGE, HUGE))), "not possible"),
    "empty shape": (header(1, 0, tensor("t", (0, 4))), "not possible"),
    "half a block": (header(1, 0, tensor("t", (33,), kind=2) + bytes(64)), "blocks hold 32"),
    "unknown type": (header(1, 0, tensor("t", (4,), kind=999) + bytes(64)), "ggml type 999"),
    "offset outside": (header(1, 0, tensor("t", (4,), offset=HUGE)), "it is cut"),
    "not aligned": (header(1, 0, tensor("t", (4,), offset=4) + bytes(64)), "aligned"),
    "overlap": (header(2, 0, tensor("a", (64,)) + tensor("b", (64,), offset=32) + bytes(600)), "overlaps"),
    "tensor twice": (header(2, 0, tensor("a", (8,)) + tensor("a", (8,), offset=32) + bytes(600)), "twice"),
    "odd alignment": (header(0, 1, text("general.alignment") + U32.pack(4) + U32.pack(3)), "power of two"),
    "alignment is text": (header(0, 1, text("general.alignment") + U32.pack(8) + text("x")), "should be int"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    data, says = HOSTILE[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data.ljust(24, b"\0"))
    with pytest.raises(ModelDirError, match=rf"bad\.gguf.*{says}"):
        GGUF(path)
