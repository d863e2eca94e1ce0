"""What an objective offers beside the contract of `scaling.objectives.base`, so that networks cut out of its own can
learn by it: its loss in two parts, that which is the same for all of them and that which each computes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import jax

from scaling.compute.counting import Tokens
from scaling.models.config import ViTConfig
from scaling.objectives.base import Batch, Objective, ObjectiveConfig


class CuttableConfig(ObjectiveConfig, Protocol):
    """The configuration of such an objective; what it makes is `Cuttable`.

    Attributes:
      distillations: names of what a network can be told by a wider one.
    """

    distillations: ClassVar[tuple[str, ...]]

    def resized(self, sizes: Mapping[str, int]) -> Self:
        """With other sizes of axes (`decoder/mlp`) of the networks beside the encoder. Whatever reads the encoder's
        axes follows the encoder.
        """

    def tokens_of_cut(self, model: ViTConfig) -> Tokens:
        """`tokens` in training, without what `Cuttable.shared` computes."""


class Cuttable(Objective, Protocol):
    """Such an objective: of the whole networks, or of some that are cut out of them."""

    def shared(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[dict[str, Any], Batch]:
        """The auxiliary trees after a step, and the inputs with what networks of all widths are given."""

    def held_out(self, extra: dict[str, Any], batch: Batch) -> Batch:
        """The same inputs of held-out images."""

    def told(self, params: Any, inputs: Batch) -> tuple[Batch, Batch]:
        """The loss and further metrics of each image, [B], and by name what narrower networks can be told; the loss of
        the batch is the mean.
        """

    def apart(self, what: str, found: jax.Array, wanted: jax.Array) -> jax.Array:
        """How far one of these is from that of a wider network, [B], in the measure of the loss."""
