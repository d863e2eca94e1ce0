"""A stem (patch embedding) declared as data: its parameters with axis names, and how often one image uses them.

Parameters and operations follow from both, as they do for the blocks (`scaling.compute.counting`). A network of the
stem has its own prefix, `spectral/embed`, so that cutting the encoder's `heads` or `mlp` never touches it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling.models import parameters


@dataclasses.dataclass(frozen=True)
class Use:
    """Use of a group of parameters by one image.

    Attributes:
      times: number of vectors to which its kernels and norms are applied.
      queries: for a group that makes keys and values, number of queries that meet each of these vectors.
    """

    times: int
    queries: int = 0


@dataclasses.dataclass(frozen=True)
class Stem:
    """The declaration of a stem.

    Attributes:
      table: group -> name -> (axes with sizes, initialiser).
      uses: group -> how one image uses it, for every group with a kernel or a norm.
    """

    table: parameters.Table
    uses: Mapping[str, Use]

    def abstract_params(self) -> tuple[Any, Any]:
        """Shapes and axis names: group -> name -> ShapeDtypeStruct, and the parallel tree of names."""
        shapes = {
            group: {name: jax.ShapeDtypeStruct(tuple(sizes.values()), jnp.float32) for name, (sizes, _) in row.items()}
            for group, row in self.table.items()
        }
        names = {group: {name: tuple(sizes) for name, (sizes, _) in row.items()} for group, row in self.table.items()}
        return shapes, names
