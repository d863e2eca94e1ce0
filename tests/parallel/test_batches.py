"""Every process makes the rows of its own devices, however these are spread over the mesh."""

import numpy as np
import pytest

from scaling.parallel.batches import LocalRows
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4, "tensor": 2}, {"replica": 2, "fsdp": 2, "tensor": 2}])
def test_what_is_placed_is_the_global_array(sizes):
    mesh = make_mesh(MeshConfig(**sizes))
    rows = LocalRows(mesh, 16)
    assert rows.blocks == (range(16),)  # one process, in one piece
    x = np.random.default_rng(0).normal(size=(16, 3))
    placed = rows.place(x.astype(np.float32))
    np.testing.assert_array_equal(placed, x.astype(np.float32))
    assert placed.sharding == batch_sharding(mesh)
