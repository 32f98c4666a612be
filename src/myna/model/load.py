"""A model directory -> a decoder or an encoder in memory, and a decoder -> tensors under their Hugging Face names.

Nothing is read before names and shapes agree with config.json. Weights are decoded in chunks of rows straight into their
final precision, and the pages of the file are given back as they are read, so loading needs the finished model and
little more. What was packed is kept on disk (modeldir/packed.py); later starts map it and read no weight.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import myna
from myna.kernels import library
from myna.model.blocks import DENSE
from myna.model.classifier import Classifier
from myna.model.config import Config
from myna.model.decoder import Decoder
from myna.model.encoder import Encoder
from myna.model.families import family, read_spec
from myna.model.linear import AnyLinear, Linear, MakeLinear, NF4Linear, PackedLinear, int8_linear
from myna.model.names import Part, check_names, parts
from myna.model.read import chunks, raw_rows, read_rows, same_bytes
from myna.model.repack import EXACT, ROUNDED, Pieces, pick_formats, regroup
from myna.model.rope import longest
from myna.model.spec import Spec
from myna.modeldir import ModelDir, Packed, Stored
from myna.modeldir.safetensors import KINDS, write_safetensors
from myna.records import ModelDirError

MAKE: dict[str, MakeLinear] = {
    "float32": Linear,
    "bfloat16": partial(Linear, dtype=torch.bfloat16),
    "int8": int8_linear,
    "mixed": int8_linear,
    "nf4": NF4Linear,
    **{name: partial(PackedLinear, format=format) for name, format in ROUNDED.items()},
}
# A token sees one row of the embedding, and every row of the head: QLoRA keeps both in 16 bits.
TABLES: dict[str, MakeLinear] = {"nf4": partial(Linear, dtype=torch.bfloat16)}
# What only the native kernels can compute with; without them it is int8 in torch's own.
NATIVE = ("mixed", *ROUNDED)
REFERENCE = "reference"
HEAD, SCORE = "lm_head.weight", "score.weight"


@torch.inference_mode(False)  # the weights stay trainable, whoever asks for them
def load_model(directory: ModelDir, precision: str = "auto", max_len: int | None = None, kv: str = "auto") -> Decoder:
    """The decoder of a model directory, without gradients, ready to answer.

    precision  float32, bfloat16, nf4 (to train adapters beside), int8, mixed (the common blocks of a GGUF file stay as they are, all else becomes int8), int4
               or the name of a 4-bit format (repack.ROUNDED); auto: mixed for quantized weights, bfloat16 for 16-bit ones,
               else float32; or reference: float32, for engine.runner.ReferenceRunner
    max_len    the longest sequence; None is what config.json states
    kv         what keys and values are kept as: int8, or auto: float32 beside float32 weights, bfloat16 otherwise

    ModelDirError names a tensor that is missing, extra or misshaped, or the setting that cannot be.
    """
    spec, stored = describe(directory)
    check_decoder(directory, spec)
    kept, precision = pick_kv(stored, kv, precision), pick_precision(stored, precision)
    max_len = pick_length(spec, max_len)
    with torch.device("meta"):
        decoder = Decoder(spec, MAKE[precision], max_len, kept, TABLES.get(precision))
    _fill(decoder, directory, stored, precision)
    return decoder.requires_grad_(False).eval()


def check_decoder(directory: ModelDir, spec: Spec) -> None:
    """ModelDirError for an encoder, with what it is good for."""
    if spec.encoder:
        raise ModelDirError(
            f"{directory.name} is an encoder ({spec.family}): it makes embeddings or scores, and answers nobody. "
            f"Use it with `myna embed --model {directory.name}`, or serve it beside a model: myna serve MODEL {directory.name}"
        )


@torch.inference_mode(False)
def load_encoder(directory: ModelDir, precision: str = "auto", max_len: int | None = None) -> Encoder:
    """The encoder of a model directory, as `load_model` loads decoders."""
    spec, stored = describe(directory)
    if not spec.encoder:
        raise ModelDirError(f"{directory.name} is a decoder ({spec.family}), not an encoder; load it as one.")
    precision = pick_precision(stored, precision)
    with torch.device("meta"):
        encoder = Encoder(spec, MAKE[precision], pick_length(spec, max_len))
    _fill(encoder, directory, stored, precision)
    return encoder.requires_grad_(False).eval()


@torch.inference_mode(False)
def load_classifier(directory: ModelDir, precision: str = "auto", max_len: int | None = None) -> Classifier:
    """A decoder with a classification head, as `load_model` loads decoders."""
    spec, stored = _named(directory)
    if SCORE not in stored or spec.encoder:
        raise ModelDirError(
            f"{directory.name} is no decoder with a classification head ({SCORE}); load it as what it is."
        )
    score, spec = stored.pop(SCORE), replace(spec, tied=True)
    check_names(parts_of(spec), {name: tensor.shape for name, tensor in stored.items()}, str(directory.path))
    precision = pick_precision(stored, precision)
    with torch.device("meta"):
        decoder = Decoder(spec, MAKE[precision], pick_length(spec, max_len))
    _fill(decoder, directory, stored, precision)
    classifier = Classifier(decoder, score.shape[0])
    classifier.score.fill(0, read_rows(score, slice(None)))
    return classifier.requires_grad_(False).eval()


def _fill(model: Decoder | Encoder, directory: ModelDir, stored: dict[str, Stored], precision: str) -> None:
    """Give a model made on the meta device its weights."""
    formats = formats_of(model.spec, stored, precision)
    for path, pieces in formats.items():
        module = model.get_submodule(path.removesuffix(".weight"))
        if isinstance(module, PackedLinear):
            with torch.device("meta"):
                module.lay_out(pieces)
    if formats and directory.weights.sources:
        _map_packed(model, directory, stored, precision)
    else:
        _fill_all(model, stored)


def _map_packed(model: Decoder | Encoder, directory: ModelDir, stored: Mapping[str, Stored], precision: str) -> None:
    """Map the packed tensors that an earlier start kept on disk; the first one packs and keeps them."""
    maker = f"{_code()} {model.spec}"
    packed = Packed.of(directory.path, directory.weights.sources, precision, maker)
    wanted = {
        name: (KINDS[str(t.dtype).removeprefix("torch.")], tuple(t.shape)) for name, t in model.state_dict().items()
    }
    found = packed.read(wanted)
    if found is not None:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()}, assign=True)
        return
    _fill_all(model, stored)
    packed.write({name: tensor.numpy() for name, tensor in model.state_dict().items()})


@cache
def _code() -> str:
    """A hash of the code that reads and packs weights, so that no other version's are taken for this one's."""
    rooms = (Path(myna.__file__).parent / room for room in ("kernels", "model", "modeldir"))
    sources = (file.read_bytes() for room in rooms for file in sorted([*room.rglob("*.py"), *room.rglob("*.h")]))
    return hashlib.blake2b(b"\0".join(sources), digest_size=12).hexdigest()


def _fill_all(model: Decoder | Encoder, stored: Mapping[str, Stored]) -> None:
    """Memory for every tensor that has none, which is touched when it is filled; then the weights, from disk."""
    # What Decoder computes itself (rotary tables) is real already.
    model._apply(lambda t: _memory(t) if t.is_meta else t)
    _in_parallel(job for part in parts_of(model.spec) for job in _jobs(model, part, stored[part.name]))


def _memory(like: Tensor) -> Tensor:
    """Uninitialised memory of this shape. numpy asks the system for large pages, torch does not: reads of packed weights
    were a tenth faster (40 and 45 GB/s at best)."""
    if like.dtype == torch.uint8:
        return torch.from_numpy(np.empty(like.shape, np.uint8))
    return torch.empty(like.shape, dtype=like.dtype)  # empty_like of a meta tensor imports sympy: a second


def describe(directory: ModelDir) -> tuple[Spec, dict[str, Stored]]:
    """The directory's spec, and its tensors by their usual names, checked against each other; no weight is read."""
    spec, stored = _named(directory)
    if not spec.encoder and SCORE in stored:
        raise ModelDirError(f"{directory.name} is a classifier: it scores texts, and answers nobody.")
    if spec.encoder:
        places, heads = {part.name for part in parts_of(spec)}, family(spec.family).HEADS
        stored = {name: tensor for name, tensor in stored.items() if name in places or not name.startswith(heads)}
    elif spec.tied and HEAD in stored:
        spec, stored = _with_own_head(spec, stored)
    check_names(parts_of(spec), {name: tensor.shape for name, tensor in stored.items()}, str(directory.path))
    return spec, stored


def _named(directory: ModelDir) -> tuple[Spec, dict[str, Stored]]:
    """Its spec, and its tensors by their usual names."""
    spec = read_spec(Config(directory.config, str(directory.path / "config.json")))
    rename = getattr(family(spec.family), "rename", lambda name: name)
    return spec, {new: tensor for name, tensor in directory.weights.items() if (new := rename(name)) is not None}


def pick_precision(stored: dict[str, Stored], precision: str) -> str:
    """What a precision, once it is checked, means for these weights here: "auto" follows them as far as there are kernels,
    "reference" is float32. ModelDirError for one that needs native kernels where there are none."""
    if precision == "auto":
        kinds = {tensor.kind for tensor in stored.values() if len(tensor.shape) > 1}
        dense = "bfloat16" if kinds & {"BF16", "F16"} else "float32"
        return dense if kinds <= set(DENSE) else "int8" if library() is None else "mixed"
    if precision == REFERENCE:
        return "float32"
    if precision not in MAKE:
        raise ModelDirError(f"precision {precision!r} is not known; these are: auto, {', '.join(MAKE)}, {REFERENCE}.")
    if precision in NATIVE and library() is None:
        raise ModelDirError(
            f"precision {precision} needs the native kernels, and there are none here; take auto or int8."
        )
    return precision


def pick_kv(stored: dict[str, Stored], kv: str, precision: str) -> str:
    """What `kv` means beside this precision, as it was asked for: float32, bfloat16 or int8."""
    if kv not in ("auto", "int8"):
        raise ModelDirError(f"kv {kv!r} is not known; these are: auto, int8.")
    if kv == "int8" and precision == REFERENCE:
        raise ModelDirError(f"precision {REFERENCE} keeps no keys and values, so they cannot be int8; leave out kv.")
    return kv if kv == "int8" else "float32" if pick_precision(stored, precision) == "float32" else "bfloat16"


def formats_of(spec: Spec, stored: dict[str, Stored], precision: str) -> dict[str, Pieces]:
    """Path -> the formats of each matrix that this precision packs; empty where nothing is packed."""
    packs = precision in ("int8", *NATIVE) and library() is not None
    return pick_formats(parts_of(spec), stored, precision) if packs else {}


def pick_length(spec: Spec, max_len: int | None) -> int:
    """`max_len`, or what config.json states. ModelDirError when the model cannot be that long."""
    most = longest(spec.rope) if spec.rope else spec.max_len
    if max_len is not None and not 1 <= max_len <= most:
        raise ModelDirError(f"max_len is {max_len}; this model reaches from 1 to {most} tokens.")
    return max_len or spec.max_len


def hf_state(model: Decoder | Encoder | Classifier) -> dict[str, Tensor]:
    """The model's tensors under their Hugging Face names, shaped as on disk: what to publish.

    Views where possible. ModelDirError for a quantized model: its weights are no longer the model's own.
    """
    if isinstance(model, Classifier):
        return hf_state(model.decoder) | {SCORE: model.score.weight}
    state = model.state_dict()
    if any(tensor.dtype in (torch.int8, torch.uint8) for tensor in state.values()):
        raise ModelDirError(f"an {model.precision} model cannot be published; load it as float32 or bfloat16.")
    found = {part.name: _cut(state[part.path], part) for part in parts_of(model.spec)}
    if model.spec.encoder and model.spec.encoder.labels:
        # transformers puts the encoder of a classifier below its own name, and the classifier beside it.
        below = family(model.spec.family).BELOW
        return {name if name.startswith("classifier") else below + name: tensor for name, tensor in found.items()}
    return found


def write_model(model: Decoder | Encoder | Classifier, folder: Path, precision: str = "float32") -> None:
    """The model's weights as folder/model.safetensors, float32 or bfloat16, under Hugging Face's names."""
    kind = getattr(torch, precision)
    state = {name: tensor.detach().to("cpu", kind).contiguous() for name, tensor in hf_state(model).items()}
    arrays = {n: (t.view(torch.uint16) if kind == torch.bfloat16 else t).numpy() for n, t in state.items()}
    with (folder / "model.safetensors").open("wb") as file:
        write_safetensors(file, arrays, {"format": "pt"})


def _cut(tensor: Tensor, part: Part) -> Tensor:
    rows = part.shape[-1] if part.turned else part.shape[0]
    cut = tensor[part.start : part.start + rows]
    return cut.T.contiguous() if part.turned else cut


def parts_of(spec: Spec) -> Iterator[Part]:
    """Every tensor of a model of this spec: its name on disk, and its place in memory."""
    module = family(spec.family)
    return parts(spec, module.NAMES, getattr(module, "TURNED", frozenset()))


def _with_own_head(spec: Spec, stored: dict[str, Stored]) -> tuple[Spec, dict[str, Stored]]:
    """A tied model's file may repeat the embedding as the head; where they differ the head counts (as in transformers)."""
    embed = next(stored[part.name] for part in parts_of(spec) if part.path == "embed.weight")
    if same_bytes(embed, stored[HEAD]):
        return spec, {name: tensor for name, tensor in stored.items() if name != HEAD}
    return spec.untied(), stored


def _jobs(model: Decoder | Encoder, part: Part, stored: Stored) -> Iterator[Callable[[], object]]:
    """The pieces of work, none larger than a chunk of rows, that read one tensor into its rows of the model's."""
    if len(part.shape) == 1:
        vector = model.get_parameter(part.path).data[part.start : part.start + part.shape[0]]
        yield lambda: vector.copy_(read_rows(stored, slice(0, 1)))
        return
    module = model.get_submodule(part.path.removesuffix(".weight"))
    assert isinstance(module, AnyLinear), part.path
    # The disk may hold columns by rows (GPT-2), and GGUF may have turned that round again.
    if part.turned != (stored.adjust == "transpose"):
        yield lambda: module.fill(part.start, read_rows(stored, slice(None)).T.contiguous())
        return
    for rows in chunks(stored, part.fused):
        yield partial(_fill_rows, module, part.start, stored, rows)


def _fill_rows(module: AnyLinear, start: int, stored: Stored, rows: slice) -> None:
    """Write a chunk of rows, which lie on disk as in memory: number for number where the format holds the type."""
    start += rows.start
    if isinstance(module, PackedLinear) and EXACT.get(stored.kind) is module.format_at(start):
        module.fill_grouped(start, regroup(stored.kind, raw_rows(stored, rows)))
    else:
        module.fill(start, read_rows(stored, rows))


def _in_parallel(jobs: Iterable[Callable[[], object]]) -> None:
    """Do the jobs on as many threads as torch has, each job on one.

    A chunk is a dozen operations of some 100 microseconds. Splitting each of them over two threads makes them wait for each
    other a dozen times a chunk, and where somebody else uses a core that took 60 s for a 1.5B model instead of 6.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the default that new threads start with
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="myna-load") as pool:
            for _ in pool.map(lambda job: job(), jobs):
                pass
    finally:
        torch.set_num_threads(threads)
