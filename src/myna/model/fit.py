"""Will it fit? What a model will take in memory, said before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from myna.kernels import FORMATS, library, row_bytes
from myna.model import nf4
from myna.model.linear import BLOCK_ELEMENTS
from myna.model.load import NATIVE, describe, formats_of, pick_kv, pick_length, pick_precision
from myna.model.repack import ROUNDED, Pieces
from myna.model.spec import Slot, Spec
from myna.modeldir import ModelDir

ITEM_BYTES = {"float32": 4, "bfloat16": 2}
# Resident before any weight: Python and torch (235 MiB, CPU build of torch 2.13), the libraries of the tokenizer and the
# server (40 MiB), and torch's own kernels once they have run, where ours do not (60 MiB).
RUNTIME = 275 << 20
TORCH_KERNELS = 60 << 20
# The tokenizer's tables: 60 MiB for a vocabulary of 49,152, 165 MiB for one of 151,936.
TOKENIZER_PER_TOKEN = 1200
# Kept float32 in every precision (moe.py says why; learned positions and token types are added, never multiplied).
ALWAYS_FLOAT32 = ("places.weight", "kinds.weight", ".router.weight", ".shared_gate.weight")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. `activations` is what one step computes with, `runtime` what is there before any weight."""

    precision: str
    weights: int
    kv_per_token: int
    kv: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.activations + self.runtime

    def beside(self, draft: "Estimate") -> "Estimate":
        """With a model that drafts for this one, in the same process: each has its weights, and its own keys and values of
        every token."""
        return replace(
            self,
            weights=self.weights + draft.weights,
            kv_per_token=self.kv_per_token + draft.kv_per_token,
            kv=self.kv + draft.kv,
            activations=self.activations + draft.activations,
        )


def estimate(
    directory: ModelDir,
    precision: str = "auto",
    *,
    kv: str = "auto",
    kv_tokens: int = 0,
    max_len: int | None = None,
    step: int = 512,
) -> Estimate:
    """Peak memory of loading the model and answering with it: `kv_tokens` positions kept as `kv` says, `step` tokens
    computed at once.

    Raises ModelDirError as `load_model` does, after the same checks, and like it reads no weight for them.
    """
    spec, stored = describe(directory)
    kv_per_token = spec.kv_bytes(pick_kv(stored, kv, precision))
    precision = pick_precision(stored, precision)
    return Estimate(
        precision=precision,
        weights=weight_bytes(spec, precision, pick_length(spec, max_len), formats_of(spec, stored, precision)),
        kv_per_token=kv_per_token,
        kv=kv_per_token * kv_tokens,
        activations=_activation_bytes(spec, precision, step),
        runtime=RUNTIME
        + (0 if precision in ("int8", *NATIVE) and library() else TORCH_KERNELS)
        + TOKENIZER_PER_TOKEN * spec.vocab,
    )


def weight_bytes(spec: Spec, precision: str, max_len: int, formats: Mapping[str, Pieces] | None = None) -> int:
    """What the decoder's tensors take, rotary tables included; exact. `formats` of packed ones, where they differ."""
    ropes = [rope for rope in (spec.rope, spec.local_rope) if rope]
    slots = sum(_slot_bytes(path, slot, precision, (formats or {}).get(path)) for path, slot in spec.slots())
    return slots + sum(4 * max_len * rope.dim for rope in ropes)


def _slot_bytes(path: str, slot: Slot, precision: str, pieces: Pieces | None) -> int:
    if slot.columns is None or path.endswith(ALWAYS_FLOAT32) or path.startswith("score."):
        return 4 * prod(slot.shape)
    if precision in ITEM_BYTES:
        return ITEM_BYTES[precision] * prod(slot.shape)
    if precision == "nf4":
        table = path in ("embed.weight", "head.weight")
        return ITEM_BYTES["bfloat16"] * prod(slot.shape) if table else slot.shape[0] * nf4.row_bytes(slot.columns)
    if library() is None:
        return prod(slot.shape) + 2 * slot.shape[0]  # Int8Linear: a bfloat16 scale a row
    pieces = pieces or ((slot.shape[0], ROUNDED.get(precision, FORMATS["q8"])),)
    return sum(format.nbytes(rows, slot.columns) for rows, format in pieces)


def _activation_bytes(spec: Spec, precision: str, step: int) -> int:
    """The widest moment of a step is the gated MLP: gate and up, act(gate), their product, its copy in bfloat16, and
    about eight rows of the model's width, or its heads'; for native mixtures the same of every expert of a row at once; then one row of
    logits and what sampling makes of it."""
    hidden = max(spec.hidden, spec.moe.shared, spec.moe.hidden) if spec.moe else spec.hidden
    wide = 4 * (4 if spec.gated else 2) * hidden + (0 if precision == "float32" else 2 * hidden)
    if spec.moe and precision not in ITEM_BYTES and library():
        inner = 4 * (1 + spec.gated) * spec.moe.hidden
        wide += spec.moe.top_k * (inner + 4 * spec.width + row_bytes(max(spec.width, spec.moe.hidden)))
    scratch = 2 * BLOCK_ELEMENTS if precision == "int8" and library() is None else 0
    return step * (wide + 4 * 8 * max(spec.width, spec.heads * spec.head_dim)) + scratch + 3 * 4 * spec.vocab
