"""The one global order: the record at each position, as a function of integers."""

import dataclasses
import functools
import zlib

import numpy as np
from grain.experimental import index_shuffle

_TABLE = 2**16  # permutations of fewer items are kept as tables
_HELD_OUT_SEED = 20_220_101  # fixed: the held-out records must not depend on the seed of a run


@dataclasses.dataclass(frozen=True)
class Order:
    """Positions to records, at a cost that does not depend on the position.

    A fixed permutation of all `total` records is cut in two: the first `held_out` are for evaluation, the rest is for
    training. Training goes through its part once per epoch, in a new order each epoch.
    """

    total: int
    held_out: int
    seed: int = 0

    @property
    def epoch(self) -> int:
        """Examples in one epoch."""
        return self.total - self.held_out

    def evaluation(self, position: int) -> int:
        """The record at a position of the evaluation order, 0 <= position < held_out."""
        return _shuffled(position, self.total, _HELD_OUT_SEED)

    def training(self, position: int, shift: int = 0) -> int:
        """The record at a position of the endless training order, or `shift` after it within the same epoch."""
        epoch, place = divmod(position, self.epoch)
        seed = zlib.crc32(f"{self.seed}/{epoch}".encode())
        return self.evaluation(self.held_out + _shuffled((place + shift) % self.epoch, self.epoch, seed))


def _shuffled(index: int, count: int, seed: int) -> int:
    """The image of an index under a pseudo-random permutation of `count` items.

    Large permutations use Grain's index shuffle, which takes microseconds for millions of items but a millisecond for a
    hundred.
    """
    if count < _TABLE:
        return int(_permutation(count, seed)[index])
    return index_shuffle(index, max_index=count - 1, seed=seed, rounds=4)


@functools.lru_cache(maxsize=8)
def _permutation(count: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).permutation(count).astype(np.int32)
