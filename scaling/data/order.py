"""The one global order: which record stands at which position. A function of integers; nothing is kept."""

import dataclasses
import zlib

from grain.experimental import index_shuffle

_HELD_OUT_SEED = 20_220_101  # fixed: which records are held out must not depend on the seed of a run


@dataclasses.dataclass(frozen=True)
class Order:
    """Positions to records, in constant memory and time.

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
        return index_shuffle(position, max_index=self.total - 1, seed=_HELD_OUT_SEED, rounds=4)

    def training(self, position: int, shift: int = 0) -> int:
        """The record at a position of the endless training order, or `shift` after it within the same epoch."""
        epoch, place = divmod(position, self.epoch)
        seed = zlib.crc32(f"{self.seed}/{epoch}".encode())
        shuffled = index_shuffle((place + shift) % self.epoch, max_index=self.epoch - 1, seed=seed, rounds=4)
        return self.evaluation(self.held_out + shuffled)
