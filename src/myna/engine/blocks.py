"""The pool of key-value blocks: who owns which, and which hold a known prefix. No torch, clock, threads or randomness.

A block holds the keys and values of BLOCK consecutive tokens. Full blocks are named by a hash chain (the block's tokens,
its predecessor's digest, and the request's adapter and salt), so a later request with the same prefix can own them too. A block
nobody owns stays findable until it is needed for something else. First go those that hold nothing to be found, the last freed
before all others: its memory is there, and perhaps still in a cache. Then the least recently freed.
"""

import hashlib
from array import array
from collections import OrderedDict

BLOCK = 16  # tokens; vLLM's default. Smaller wastes table space, larger wastes half a block per sequence


def blocks_for(tokens: int) -> int:
    """Blocks that hold `tokens` tokens."""
    return -(-tokens // BLOCK)


def extend_digests(digests: list[bytes], tokens: list[int], root: bytes) -> None:
    """Append the digests of the full blocks of `tokens` that `digests` does not cover yet. The chain begins with `root`.

    A cryptographic hash: with a weaker one a crafted prompt could collide with, and read, somebody else's prefix.
    """
    for start in range(len(digests) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
        parent = digests[-1] if digests else root
        digests.append(hashlib.blake2b(parent + array("q", tokens[start : start + BLOCK]).tobytes()).digest()[:16])


class Blocks:
    """A fixed number of blocks, each free or owned by one or more sequences."""

    def __init__(self, count: int):
        self.count = count
        self.owners = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))  # the first goes first
        self._digest_of: dict[int, bytes] = {}
        self._holding: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def find(self, digests: list[bytes]) -> list[int]:
        """The blocks that hold the longest known prefix of this chain."""
        found = []
        for digest in digests:
            block = self._holding.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def own(self, blocks: list[int]) -> None:
        """One more owner for each of these; free ones stop being free."""
        for block in blocks:
            self.owners[block] += 1
            self._free.pop(block, None)

    def take(self, n: int) -> list[int]:
        """n free blocks, owned once. What they held is forgotten."""
        assert n <= self.free, f"taking {n} blocks of {self.free} free; the scheduler checks before it takes"
        blocks = [self._free.popitem(last=False)[0] for _ in range(n)]
        for block in blocks:
            self.forget(block)
            self.owners[block] = 1
        return blocks

    def release(self, blocks: list[int]) -> None:
        """One owner fewer for each. The tail is freed first, so that a prefix outlives what followed it."""
        for block in reversed(blocks):
            assert self.owners[block] > 0, f"releasing block {block}, which nobody owns"
            self.owners[block] -= 1
            if self.owners[block] == 0:
                self._free[block] = None
                if block not in self._digest_of:
                    self._free.move_to_end(block, last=False)

    def remember(self, block: int, digest: bytes) -> None:
        """This block is full and holds what `digest` names. A twin that was there first stays the one that is found."""
        if digest not in self._holding and block not in self._digest_of:
            self._holding[digest] = block
            self._digest_of[block] = digest

    def forget(self, block: int) -> None:
        """What this block holds can no longer be found."""
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._holding[digest]

    def check(self) -> None:
        """Assert the pool's law: every block is free or owned, and what can be found is what was remembered."""
        for block, owners in enumerate(self.owners):
            assert (owners == 0) == (block in self._free), f"block {block} has {owners} owners"
        assert {block: digest for digest, block in self._holding.items()} == self._digest_of
