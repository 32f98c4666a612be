"""The same weights in other types: a 16-bit GGUF file of a model's own, and what llama.cpp's quantizer makes of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

from myna.modeldir import ModelDir

QUANTIZE = """
import ctypes, sys, llama_cpp as lc
quiet = lc.llama_log_callback(lambda level, text, data: None)
lc.llama_log_set(quiet, ctypes.c_void_p(0))
params = lc.llama_model_quantize_default_params()
params.ftype = getattr(lc, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
sys.exit(lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


def f16(directory: ModelDir, folder: Path) -> Path:
    """A model directory of the same weights in float16, so that every quantizer starts from the same numbers."""
    made = folder / f"{directory.name}-f16"
    if not made.is_dir():
        part = folder / f"{directory.name}-f16.partial"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copyfile(directory.path / name, part / name)
        for template in directory.path.glob("*.jinja"):
            shutil.copyfile(template, part / template.name)
        _write_f16(directory.path / "model.gguf", part / "model.gguf")
        part.rename(made)
    return made


def quantized(source: Path, kind: str, python: str) -> Path:
    """SOURCE.gguf in one of llama.cpp's types, made by its own quantizer."""
    made = source.parent.parent / f"{source.parent.name}-{kind.lower()}.gguf"
    if not made.exists():
        part = made.with_suffix(".partial")
        subprocess.run([python, "-c", QUANTIZE, source, part, kind], check=True, capture_output=True)
        part.rename(made)
    return made


def w8a8(directory: ModelDir, folder: Path) -> Path:
    """The same weights as vLLM's W8A8, written by w8a8.py."""
    made = folder / f"{directory.name}-w8a8"
    if not made.is_dir():
        part = folder / f"{directory.name}-w8a8.partial"
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run([sys.executable, Path(__file__).parent / "w8a8.py", directory.path, part], check=True)
        part.rename(made)
    return made


def _write_f16(source: Path, target: Path) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        shape = tensor.shape.tolist()[::-1]
        dtype = np.float16 if len(shape) > 1 else np.float32
        writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.write_tensor_data(numbers.astype(np.float16 if len(tensor.shape) > 1 else np.float32))
    writer.close()
