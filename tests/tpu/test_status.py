"""What `status` and `list` show of slices that the launcher did not create."""

import time

from tpu.cloud.found import READY, Found, Node
from tpu.cloud.status import HEADER, cells


def test_a_slice_of_a_kind_that_is_not_known_has_no_cost():
    old = Node(name="old", created=time.time() - 3600, accelerator="v3-8")
    row = dict(zip(HEADER, cells(Found(READY, accelerator="v3-8"), old, "z", "old", 1.0, {}), strict=True))
    assert (row["name"], row["age"], row["cost"]) == ("old", "1 h 0 min", "")
