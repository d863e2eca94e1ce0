"""On a real slice the devices of a host are at several places in the batch."""

import pytest

from scaling.parallel.batches import LocalRows
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from tpu.compiler.topology import parse

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.mark.parametrize(
    ("where", "sizes", "pieces"),
    [
        ("v5e:16x16", {}, 2),
        ("v5e:4x4", {"tensor": 4}, 1),  # every row on two hosts
        ("v5p:4x4x8", {"replica": 2}, 4),
        ("v6e:8x8", {"tensor": 8}, 1),
    ],
)
def test_the_rows_of_a_host_are_those_of_its_chips(where, sizes, pieces):
    mesh = make_mesh(MeshConfig(**sizes), parse(where).devices)
    batch = 4 * mesh.size
    found = {}
    for device, (rows, *_) in batch_sharding(mesh).devices_indices_map((batch,)).items():
        found.setdefault(device.process_index, set()).update(range(*rows.indices(batch)))
    assert set.union(*found.values()) == set(range(batch))
    for process, rows in found.items():
        blocks = LocalRows(mesh, batch, process).blocks
        assert len(blocks) == pieces
        assert [row for block in blocks for row in block] == sorted(rows)
