"""GGUF block types are decoded to exactly the numbers of the gguf package."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from myna.model.blocks import _BLOCKS, decode
from myna.model.read import CHUNK, chunks, read_rows
from myna.modeldir import Stored
from myna.records import ModelDirError

BY_PACKAGE = ["IQ4_XS", "IQ2_XXS", "TQ1_0", "MXFP4"]


def random_blocks(kind: str, rows: int, blocks: int) -> np.ndarray:
    """Any bytes are valid blocks; a scale may even be infinite or NaN."""
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    return np.random.default_rng(7).integers(0, 256, (rows, blocks * size), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
@pytest.mark.parametrize("kind", [*_BLOCKS, *BY_PACKAGE])
def test_random_blocks_decode_bit_for_bit(kind: str) -> None:
    raw = random_blocks(kind, 37, 5)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    assert_same_bits(decode(kind, raw.copy()), expected)


@pytest.mark.parametrize("kind", _BLOCKS)
def test_block_sizes_are_those_of_the_package(kind: str) -> None:
    assert _BLOCKS[kind][0] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]


def test_tensors_of_a_real_file_decode_bit_for_bit(smollm2: Path) -> None:
    for tensor in gguf.GGUFReader(smollm2 / "model.gguf").tensors[2::40]:
        raw = np.array(tensor.data).view(np.uint8)
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(len(np.atleast_2d(raw)), -1)
        assert_same_bits(decode(tensor.tensor_type.name, np.atleast_2d(raw)), expected)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ModelDirError, match="Q9_Z"):
        decode("Q9_Z", np.zeros((1, 32), np.uint8))


@pytest.mark.parametrize(("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_dense_kinds_are_read_as_they_are(kind: str, dtype: torch.dtype) -> None:
    x = torch.randn(3, 8).to(dtype)
    assert torch.equal(decode(kind, x.view(torch.uint8).numpy().copy()), x.float())


@pytest.mark.parametrize("columns", [1, 3, CHUNK // 4, CHUNK + 1])
def test_chunks_cover_every_row_once(columns: int) -> None:
    """Rows longer than a chunk, and rows that have to move, too."""
    x = np.arange(9 * columns, dtype=np.float32).reshape(9, columns)
    order = np.random.default_rng(0).permutation(9)
    stored = Stored("w", x.shape, "F32", x.view(np.uint8), order=order)
    whole = torch.cat([read_rows(stored, rows) for rows in chunks(stored)])
    assert torch.equal(whole, torch.from_numpy(x[order]))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc to count resident pages")
def test_pages_of_the_file_are_given_back_as_they_are_read(tmp_path: Path) -> None:
    """Else a 70 GB file counts as 70 GB of this process while it loads."""
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(16 << 20))
    stored = Stored("w", (4096, 1024), "F32", np.memmap(file, np.uint8, "r").reshape(4096, -1).view(np.ndarray))
    for rows in chunks(stored):
        read_rows(stored, rows)
    smaps = Path("/proc/self/smaps").read_text().split(str(file))[1]
    resident = next(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Rss:"))
    assert resident < 1024, f"{resident} kB of 16384 still mapped"


def assert_same_bits(ours: torch.Tensor, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    nan = np.isnan(theirs)  # which NaN it is does not matter
    assert np.array_equal(np.isnan(ours.numpy()), nan)
    assert np.array_equal(ours.numpy().view(np.int32)[~nan], theirs.view(np.int32)[~nan])
