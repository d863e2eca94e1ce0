"""The rows of a global batch that a process makes, and the global array assembled from the rows of all processes.

Neighbours in the mesh need not belong to one host: in a v5e:16x16 a host holds a square of four chips, whose rows are
at two places in the batch. Every process makes the rows of its own devices, wherever these are; if the mesh axis
`tensor` spans hosts, several make the same rows.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh


class LocalRows:
    """The rows of every batch that belong on the devices of this process.

    Args:
      mesh: the device mesh, over all processes.
      batch_size: rows of a global batch.
      process_index: index of the process; this process by default.

    Attributes:
      blocks: the rows, in order, as disjoint, non-adjacent ranges.
    """

    def __init__(self, mesh: Mesh, batch_size: int, process_index: int | None = None):
        mine = jax.process_index() if process_index is None else process_index
        self._sharding, self._batch_size = batch_sharding(mesh), batch_size
        indices: Any = self._sharding.devices_indices_map((batch_size,))
        parts = {self._bounds(index) for device, index in indices.items() if device.process_index == mine}
        self._places: dict[int, int] = {}  # first row of a device -> its index among the rows of this process
        self.blocks: tuple[range, ...] = ()
        count = 0
        for start, stop in sorted(parts):
            self._places[start] = count
            count += stop - start
            if self.blocks and self.blocks[-1].stop == start:
                self.blocks = (*self.blocks[:-1], range(self.blocks[-1].start, stop))
            else:
                self.blocks = (*self.blocks, range(start, stop))

    def _bounds(self, index: Any) -> tuple[int, int]:
        return index[0].indices(self._batch_size)[:2]

    def place(self, x: np.ndarray) -> jax.Array:
        """The rows of this process [rows, ...], in the order of `blocks` -> the global array [batch_size, ...]."""

        def part(index: Any) -> np.ndarray:
            start, stop = self._bounds(index)
            first = self._places[start]
            return x[first : first + stop - start]

        return jax.make_array_from_callback((self._batch_size, *x.shape[1:]), self._sharding, part)


def mesh_that_splits(batch_size: int) -> Mesh:
    """A mesh of all devices that splits a batch over as many of them as divide it; the others duplicate their work."""
    return make_mesh(MeshConfig(fsdp=math.gcd(batch_size, jax.device_count()), tensor=-1))


def split_batch(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """The global array, split over the devices, from a batch [B, ...] that every process holds whole."""
    return jax.make_array_from_callback(x.shape, batch_sharding(mesh), lambda index: x[index])


def whole(x: jax.Array) -> np.ndarray:
    """The whole of a global array, in every process; all processes must call this."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))
