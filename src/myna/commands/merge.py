"""myna merge: an adapter becomes part of the model it was trained beside."""

from pathlib import Path
from typing import Literal

from myna.records import DataError


def run(
    adapter: Path,
    /,
    *,
    out: Path,
    model: str = "",
    save: Literal["float32", "bfloat16"] = "bfloat16",
    replace: bool = False,
) -> None:
    """Write a model directory that answers as the model with the adapter does, and say how far the two are apart.

    Parameters
    ----------
    adapter
        A folder in PEFT's layout: what `myna train METHOD --lora.rank 8` leaves.
    out
        The model directory to make.
    model
        The model to merge into; left out, the one that the adapter names. A quantized one is decoded first.
    save
        What the merged numbers are written as.
    replace
        Replace `out` if it exists.
    """
    from myna.train.merge import merge_adapter

    if out.exists() and not replace:
        raise DataError(f"{out} exists; --replace replaces it.")
    merged = merge_adapter(adapter, model, out, save)
    rounded = "\nrounding is more than the adapter does: --save float32 keeps it" * (merged.saved > merged.moved)
    print(
        f"{merged.place}\nmerged into {merged.base}: logits differ from the adapter's beside float32 weights by at most "
        f"{merged.exact:.2g} before rounding and {merged.saved:.2g} as saved, where the adapter itself moves them by {merged.moved:.2g}{rounded}"
    )
