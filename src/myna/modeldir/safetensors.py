"""Reading and writing safetensors files: eight bytes of header length, a JSON header, the tensors' bytes.

Format: https://huggingface.co/docs/safetensors. Nothing is allocated from a number in the file before that number has
been compared with the file's size.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from myna.modeldir.stored import Stored, as_rows, map_file
from myna.records import ModelDirError

# Bytes per number. Kinds below one byte (F4, F6_*) are not here: no family of ours is stored in them.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
KINDS = {"uint8": "U8", "float32": "F32", "uint16": "BF16"}  # what is written: numpy's name -> the format's
ALIGNED = 64  # bytes of a cache line, and of the widest load
LARGE_PAGE = 2 << 20
MAX_HEADER = 100_000_000  # the reference implementation's bound
MAX_DIMS = 8


def read_safetensors(path: Path, *, private: bool = False) -> dict[str, Stored]:
    """The file's tensors by name, mapped; `private`: writable, and what is written stays in this process's memory.

    Raises ModelDirError naming the file and the tensor at fault."""
    size = path.stat().st_size
    header, start = _read_header(path, size)
    header.pop("__metadata__", None)
    spans = sorted((_entry(path, name, entry) for name, entry in header.items()), key=lambda item: item[3])
    _check_spans(path, spans, size - start)
    data = map_file(str(path), private=private)
    return {
        name: Stored(name, shape, kind, as_rows(data[start + begin : start + end], shape))
        for name, kind, shape, begin, end in spans
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts of the file's __metadata__; {} if it has none. Raises ModelDirError."""
    found = _read_header(path, path.stat().st_size)[0].get("__metadata__", {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ModelDirError(f"{path}: __metadata__ should be an object of texts.")
    return found


def write_safetensors(
    file: BinaryIO,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    kinds: Mapping[str, str] = KINDS,
) -> None:
    """Write contiguous arrays (see `kinds`; numpy has no bfloat16, so its bits come as uint16) in this order. The first begins
    at a multiple of ALIGNED bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        span = [at, at := at + tensor.nbytes]
        header[name] = {"dtype": kinds[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": span}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED)
    begin = memoryview(struct.pack("<Q", len(text)) + text)
    _write_stretches(file, [begin, *(tensor.reshape(-1).view(np.uint8).data for tensor in tensors.values())])


def _write_stretches(file: BinaryIO, parts: list[memoryview]) -> None:
    """The parts end to end. Written in stretches that begin at multiples of a large page, the system keeps the file in
    large pages, from which mapped weights are read as fast as from memory of our own; in other stretches 4 to 7 % slower."""
    held = bytearray()
    for part in parts:
        for at in range(0, len(part), LARGE_PAGE):
            held += part[at : at + LARGE_PAGE]
            if len(held) >= LARGE_PAGE:
                file.write(held[:LARGE_PAGE])
                del held[:LARGE_PAGE]
    file.write(held)


Span = tuple[str, str, tuple[int, ...], int, int]  # name, kind, shape, begin, end


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with open(path, "rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise ModelDirError(f"{path}: {size} bytes; not a safetensors file. Download it again.")
        (length,) = struct.unpack("<Q", first)
        if length > MAX_HEADER:
            raise ModelDirError(f"{path}: claims a header of {length} bytes; at most {MAX_HEADER} are allowed.")
        if 8 + length > size:
            raise ModelDirError(
                f"{path}: the header should end at byte {8 + length}, but the file has {size}: it is cut."
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as e:
        raise ModelDirError(f"{path}: the header is not JSON: {e}") from None
    if not isinstance(header, dict):
        raise ModelDirError(f"{path}: the header is not a JSON object.")
    return header, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:200]!r} appears twice")
        found[name] = value
    return found


def _entry(path: Path, name: str, entry: Any) -> Span:
    """One header entry, checked by itself."""
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise ModelDirError(f"{where}: needs dtype, shape and data_offsets.")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in ITEM_BYTES:
        raise ModelDirError(f"{where}: dtype {kind!r} is not supported; these are: {', '.join(ITEM_BYTES)}.")
    if not _naturals(shape) or len(shape) > MAX_DIMS:
        raise ModelDirError(f"{where}: {str(shape)[:80]} is not a shape of at most {MAX_DIMS} dimensions.")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelDirError(f"{where}: {str(offsets)[:80]} is not a pair of offsets.")
    begin, end = offsets
    if 0 in shape:
        raise ModelDirError(f"{where}: shape {shape} holds no number.")
    if math.prod(shape) * ITEM_BYTES[kind] != end - begin:
        raise ModelDirError(f"{where}: {kind} of shape {shape} does not fill the {end - begin} bytes it is given.")
    return name, kind, tuple(shape), begin, end


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_spans(path: Path, spans: list[Span], size: int) -> None:
    """The tensors must fill the bytes after the header exactly: no overlap, no gap, nothing left over."""
    at = 0
    for name, _, _, begin, end in spans:
        if begin != at:
            kind = "overlaps the tensor before it" if begin < at else f"leaves {begin - at} unused bytes before it"
            raise ModelDirError(f"{path}: tensor {name!r} {kind}.")
        at = end
    if at > size:
        raise ModelDirError(f"{path}: is cut: tensors need {at} bytes, {size} are there. Download it again.")
    if at < size:
        raise ModelDirError(f"{path}: {size - at} bytes after the last tensor belong to nothing.")
