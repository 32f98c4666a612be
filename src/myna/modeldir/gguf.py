"""Reading GGUF files, versions 2 and 3, little endian: metadata, tensor table, and the tensors' bytes, mapped.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package reads the same files, but takes
seconds for a large vocabulary and trusts every count; here each is compared with the bytes that are left first.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from myna.modeldir.stored import map_file
from myna.records import ModelDirError

T = TypeVar("T")

MAX_TENSORS = 1 << 18  # a 128-expert, 94-layer model has 1,131 (experts are stacked)
MAX_KEYS = 1 << 16
MAX_NAME = 1 << 16  # the specification's bound for a key
MAX_DIMS = 4  # GGML_MAX_DIMS

# Value type -> struct letter. 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor lies. `shape` is outermost first, as numpy and Hugging Face write it."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    nbytes: int


class GGUF:
    """A GGUF file: `metadata` by key, `tensors` by GGUF name. Raises ModelDirError naming what is wrong and where."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            if path.stat().st_size < 24:
                raise ModelDirError(f"{path}: {path.stat().st_size} bytes; not a GGUF file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                read = _Reader(path, data)
                tensors, keys = read.counts()
                self.metadata: dict[str, Any] = read.keys(keys)
                self.tensors: dict[str, Span] = read.spans(tensors, self.get("general.alignment", int, 32))
        self._data = map_file(str(path))

    def list_of(self, key: str, kind: type[T], default: list[T] | None = None) -> list[T]:
        """A metadata array, checked to hold nothing but `kind`."""
        values = self.get(key, list, default)
        if not all(type(value) is kind for value in values):
            raise ModelDirError(f"{self.path}: {key} should be an array of {kind.__name__}.")
        return values

    def bytes_of(self, span: Span) -> np.ndarray:
        """The tensor's bytes, uint8 [nbytes]."""
        return self._data[span.offset : span.offset + span.nbytes]

    def values_of(self, name: str) -> np.ndarray:
        """A small F32 tensor as numbers."""
        span = self.tensors[name]
        if span.kind != "F32":
            raise ModelDirError(f"{self.path}: {name} should be F32, it is {span.kind}.")
        return self.bytes_of(span).view(np.float32)

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """A metadata value, checked to be a `kind`; absent is `default`, or an error when there is none."""
        value = self.metadata.get(key, default)
        if value is None:
            raise ModelDirError(
                f"{self.path}: metadata has no {key!r}. Convert the model again with a newer llama.cpp."
            )
        if kind is float and type(value) is int:
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelDirError(f"{self.path}: {key} is {value}; it should be a number.")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ModelDirError(f"{self.path}: {key} should be {kind.__name__}, it is {type(value).__name__}.")
        return value


# ggml type number -> (name, numbers per block, bytes per block); what most files are made of, to import nothing for them.
BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2),
}  # fmt: skip


@cache
def all_blocks() -> dict[int, tuple[str, int, int]]:
    """The same of every type that the gguf package knows."""
    from gguf.constants import GGML_QUANT_SIZES  # here, because it takes 70 ms

    return {int(kind): (kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()}


class _Reader:
    """A position in the file that only moves forward."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at, self.size = path, data, 0, len(data)

    def fail(self, what: str) -> ModelDirError:
        return ModelDirError(f"{self.path}: byte {self.at}: {what}")

    def scalar(self, letter: str) -> Any:
        self.need(struct.calcsize("<" + letter), "a number")
        (value,) = struct.unpack_from("<" + letter, self.data, self.at)
        self.at += struct.calcsize("<" + letter)
        return value

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise self.fail(f"{what} needs {count} bytes, {self.size - self.at} are left; the file is cut or damaged.")

    def string(self, limit: int | None = None) -> str:
        length = self.scalar("Q")
        if limit is not None and length > limit:
            raise self.fail(f"a name of {length} bytes; at most {limit} are allowed.")
        self.need(length, "a string")
        try:
            text = self.data[self.at : self.at + length].decode()
        except UnicodeDecodeError:
            raise self.fail("a string is not UTF-8.") from None
        self.at += length
        return text

    def counts(self) -> tuple[int, int]:
        """(tensors, keys), after the magic and the version."""
        if self.data[:4] != b"GGUF":
            raise self.fail(f"starts with {self.data[:4]!r}, not GGUF.")
        self.at = 4
        version = self.scalar("I")
        if version & 0xFFFF == 0:
            raise self.fail(
                "a big-endian GGUF file is not supported. Convert the model again on a little-endian machine."
            )
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version} is not supported; 2 and 3 are. Convert the model again.")
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise self.fail(
                f"claims {tensors} tensors and {keys} keys; at most {MAX_TENSORS} and {MAX_KEYS} are allowed."
            )
        return tensors, keys

    def keys(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.string(MAX_NAME)
            if key in found:
                raise self.fail(f"key {key!r} appears twice.")
            found[key] = self.value(self.scalar("I"))
        return found

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise self.fail(f"value type {kind} is unknown.")
        item, count = self.scalar("I"), self.scalar("Q")
        if item == STRING:
            return self.strings(count)
        if item not in SCALARS:
            raise self.fail(f"an array of value type {item} is not supported.")
        self.need(count * struct.calcsize("<" + SCALARS[item]), f"an array of {count}")
        values = struct.unpack_from(f"<{count}{SCALARS[item]}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{SCALARS[item]}")
        return list(values)

    def strings(self, count: int) -> list[str]:
        """An array of strings. The one loop that matters for speed: a vocabulary and its merges are 300,000 of them."""
        self.need(8 * count, f"an array of {count} strings")
        data, at, size, length_at = self.data, self.at, self.size, _COUNT.unpack_from
        found = []
        try:
            for _ in range(count):
                begin = at + 8
                at = begin + length_at(data, at)[0]
                if at > size:
                    raise self.fail("a string array runs past the end; the file is cut or damaged.")
                found.append(data[begin:at].decode())
        except struct.error:
            raise self.fail("a string array runs past the end; the file is cut or damaged.") from None
        except UnicodeDecodeError:
            raise self.fail(f"string {len(found)} of an array is not UTF-8.") from None
        self.at = at
        return found

    def spans(self, count: int, alignment: int) -> dict[str, Span]:
        """The tensor table. Offsets in it count from the first aligned byte after it."""
        if alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise self.fail(f"general.alignment is {alignment}; it must be a power of two.")
        found = [self.span() for _ in range(count)]
        start = -(-self.at // alignment) * alignment
        spans = {name: Span(name, shape, kind, start + at, size) for name, shape, kind, at, size in found}
        if len(spans) != count:
            raise self.fail("a tensor name appears twice.")
        end = 0
        for span in sorted(spans.values(), key=lambda s: s.offset):
            if span.offset % alignment or span.offset < end:
                raise self.fail(
                    f"tensor {span.name!r} overlaps the one before it or is not aligned to {alignment} bytes."
                )
            end = span.offset + span.nbytes
        if end > self.size:
            raise self.fail(f"tensors end at byte {end}, the file at {self.size}: it is cut. Download it again.")
        return spans

    def span(self) -> tuple[str, tuple[int, ...], str, int, int]:
        name, dims = self.string(MAX_NAME), self.scalar("I")
        if not 1 <= dims <= MAX_DIMS:
            raise self.fail(f"tensor {name!r} has {dims} dimensions; from 1 to {MAX_DIMS} are allowed.")
        shape = tuple(reversed([self.scalar("Q") for _ in range(dims)]))  # the file writes the innermost first
        number, offset = self.scalar("I"), self.scalar("Q")
        known = BLOCKS.get(number) or all_blocks().get(number)
        if known is None:
            raise self.fail(f"tensor {name!r} has ggml type {number}, which this gguf package does not know.")
        kind, block, size = known
        count = math.prod(shape)
        if not 0 < count < 2**63 or (shape and shape[-1] % block):
            raise self.fail(f"tensor {name!r}: shape {shape} is not possible for {kind}, whose blocks hold {block}.")
        return name, shape, kind, offset, count // block * size
