"""Which examples share a row: best fit in windows, the same for the same (lengths, room, seed, epoch).

An epoch's examples are shuffled, cut into windows, and each window is packed by best-fit decreasing (Johnson et al. 1974;
for training, Ding et al. 2024, arXiv:2404.10830): long examples first, each into the fullest row it still fits. The rows of
a window are shuffled again, so that full and loose rows are mixed. Nothing is cut and nothing is left out.
"""

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

WINDOW = 4096  # examples; with 1000 and more, rows are 98 % full and fuller (docs/log.md)


def pack(lengths: npt.NDArray[np.integer], room: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The examples' numbers, row by row. Raises ValueError for an example that no row has room for."""
    if len(lengths) and int(lengths.max()) > room:
        worst = int(lengths.argmax())
        raise ValueError(f"example {worst} has {lengths[worst]} tokens, and a row has room for {room}")
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    rows: list[npt.NDArray[np.int64]] = []
    for number, start in enumerate(range(0, len(order), WINDOW)):
        packed = _best_fit(order[start : start + WINDOW], lengths, room)
        shuffled = np.random.default_rng([seed, epoch, number]).permutation(len(packed))
        rows.extend(packed[i] for i in shuffled)
    return rows


def _best_fit(
    window: npt.NDArray[np.int64], lengths: npt.NDArray[np.integer], room: int
) -> list[npt.NDArray[np.int64]]:
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []  # (room left, row), sorted
    for example in window[np.argsort(-lengths[window], kind="stable")].tolist():
        size = int(lengths[example])
        at = bisect_left(left, (size, -1))
        free, row = left.pop(at) if at < len(left) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(example)
        if free > size:
            insort(left, (free - size, row))
    return [np.array(row, np.int64) for row in rows]
