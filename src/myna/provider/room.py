"""Whether there is room: in memory for a model that is to be loaded, in a model's context for a text nobody tokenized yet."""

from typing import TYPE_CHECKING

from myna.records import ModelDirError

if TYPE_CHECKING:
    from myna.model import Estimate

LONGEST_TOKEN = 256  # characters; the longest in the vocabularies we know are 81 (SmolLM2) and 128 (Qwen, blanks)


def check_memory(needs: "Estimate", what: str, advice: str) -> None:
    """Raises ModelDirError with the sum when `what`, a model and its use, does not fit into memory here."""
    from myna.model import available_memory

    if needs.total <= (free := available_memory()):
        return
    parts = {"weights": needs.weights, "keys and values": needs.kv, "to work with": needs.activations + needs.runtime}
    told = ", ".join(f"{nbytes / 1e9:.1f} {name}" for name, nbytes in parts.items() if nbytes)
    raise ModelDirError(
        f"{what} needs {needs.total / 1e9:.1f} GB ({told}) and {free / 1e9:.1f} GB of memory is free. Try {advice}."
    )
