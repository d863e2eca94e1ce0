"""An encoder with a linear head, for fine-tuning."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import parameters
from scaling.models.config import ViTConfig
from scaling.models.parameters import Parameters
from scaling.models.transformer import project
from scaling.models.vit import POOLS, ViT, image_input


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(ViTConfig):
    """An encoder and its head.

    Attributes:
      classes: number of classes, or of labels.
      multi_label: whether an image can have several labels, instead of one class.
      pool: cls, or mean over the patches.
    """

    classes: int = 2
    multi_label: bool = False
    pool: str = "mean"

    def check(self) -> None:
        super().check()
        if self.classes < (1 if self.multi_label else 2):
            raise UserError(f"task.classes={self.classes}: needs at least two classes, or one label")
        if self.pool not in ("cls", "mean") or (self.pool == "cls" and not self.class_token):
            raise UserError(f"task.pool={self.pool!r} is not supported by this encoder; use mean")


class Classifier(nn.Module):
    """Images to logits; see `ViT` for `dtype`. The head is float32 and is initialised close to zero (He et al.,
    2111.06377), so that the first steps do not disturb the encoder.
    """

    config: ClassifierConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """float [B, h, w, C], normalised -> float32 [B, K]."""
        c = self.config
        tokens = ViT(c, self.dtype, name="encoder")(images)
        head = Parameters(head_table(c), name="head")()
        return project(head, POOLS[c.pool](tokens, c).astype(jnp.float32))


def head_table(c: ClassifierConfig) -> dict[str, parameters.Declaration]:
    """Parameters of the head."""
    return {
        "kernel": ({"embed": c.width, "classes": c.classes}, parameters.normal(2e-5)),
        "bias": ({"classes": c.classes}, parameters.zeros),
    }


def init_head(c: ClassifierConfig, seed: int) -> Any:
    """The head before the first step, drawn by `seed`."""
    return parameters.init_params(Parameters(head_table(c)), seed)


@functools.lru_cache(maxsize=16)
def abstract_classifier(c: ClassifierConfig) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(Classifier(c), image_input(c))


def layers_below_head(names: Any, c: ViTConfig, frozen: bool = False) -> Any:
    """Number of layers between each parameter and the head, as in facebookresearch/mae: 0 for the head and the final
    norm, 1 to `depth` for the blocks from the last to the first, `depth` + 1 for everything before them.

    Args:
      names: axis names of all parameters.
      c: the architecture.
      frozen: whether the encoder is not trained; the number is then infinite for its parameters.

    Returns:
      Parallel tree of arrays, [] or, along the axis `layers`, [L, 1, ...].
    """

    def count(leaf: axes.Names, group: str) -> np.ndarray:
        if frozen:
            return np.full((), np.inf)
        if leaf[0] == "layers":
            return np.arange(c.depth, 0, -1).reshape(-1, *[1] * (len(leaf) - 1))
        return np.array(0 if group == "norm" else c.depth + 1)

    encoder = {
        group: axes.map_named(lambda leaf, group=group: count(leaf, group), tree)
        for group, tree in names["encoder"].items()
    }
    return {"encoder": encoder, "head": axes.map_named(lambda leaf: np.array(0), names["head"])}
