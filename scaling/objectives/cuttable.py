"""The contract, beyond that of `scaling.objectives.base`, of an objective by which networks cut out of its own can
learn: its loss is split into a part shared by all of them and a part that each computes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import jax

from scaling.compute.counting import Tokens
from scaling.models.config import ViTConfig
from scaling.objectives.base import Batch, Objective, ObjectiveConfig


class CuttableConfig(ObjectiveConfig, Protocol):
    """The configuration of such an objective; `make` returns a `Cuttable`.

    Attributes:
      distillations: names of the outputs that a network can learn from a wider one.
    """

    distillations: ClassVar[tuple[str, ...]]

    def resized(self, sizes: Mapping[str, int]) -> Self:
        """The configuration with other axis sizes (`decoder/mlp`) of the networks beside the encoder. Parameters that
        read the encoder's axes follow the encoder.
        """

    def tokens_of_cut(self, model: ViTConfig) -> Tokens:
        """`tokens` in training, without those of `Cuttable.shared`."""


class Cuttable(Objective, Protocol):
    """A cuttable objective, of the whole networks or of some that are cut out of them."""

    def shared(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[dict[str, Any], Batch]:
        """The auxiliary trees after a step, and the inputs including those shared by networks of all widths."""

    def held_out(self, extra: dict[str, Any], batch: Batch) -> Batch:
        """The same inputs of held-out images."""

    def told(self, params: Any, inputs: Batch) -> tuple[Batch, Batch]:
        """The loss and further metrics of each image, [B], and by name the outputs that narrower networks can learn;
        the loss of the batch is the mean.
        """

    def apart(self, what: str, found: jax.Array, wanted: jax.Array) -> jax.Array:
        """Distance of such an output from that of a wider network, [B], in the units of the loss."""
