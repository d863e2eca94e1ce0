"""Whether all numbers of a tree are finite: those that are read into a run, and those that are written from elsewhere.

A run itself looks at its loss and norms before it saves. That says nothing of numbers that enter no loss: a moving
average, or an infinite second moment, with which a parameter stands still in silence.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def first_not_finite(tree: Any) -> str:
    """The path of the first array with NaN or infinity, the same in all processes; empty if there is none.

    Every process has to call it; each looks at its own parts of the arrays, one after the other.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    first = next((i for i, (_, x) in enumerate(leaves) if not _is_finite(x)), len(leaves))
    if jax.process_count() > 1:
        first = int(np.min(multihost_utils.process_allgather(np.int32(first))))
    return jax.tree_util.keystr(leaves[first][0], simple=True, separator="/") if first < len(leaves) else ""


def _is_finite(x: Any) -> bool:
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.inexact):
        return True
    if not isinstance(x, jax.Array):
        return bool(np.isfinite(np.asarray(x)).all())
    # On the devices: the host would keep a copy of everything it had looked at. What is on a CPU it reads where it is,
    # instead of a program for each shape and device.
    parts: list[Any] = [part for part in x.addressable_shards if not part.replica_id]
    return all(bool((np if part.device.platform == "cpu" else jnp).isfinite(part.data).all()) for part in parts)
