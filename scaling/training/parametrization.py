"""How initialisation, learning rates and residual sums change with the size of a model.

A parametrization is told from a smaller model, the base, in which the learning rate was tuned. Everything follows from
which dimensions of a parameter are larger than in the base, and from the names of those dimensions:

| | standard | mup | completep |
|---|---|---|---|
| kernels at the start, standard deviation | Xavier | base / sqrt(in) * min(1, sqrt(out / in)) | as mup |
| learning rate of kernels | eta | eta / in | as mup |
| scale of the logits | head_dim^-1/2 | base / head_dim growth | as mup |
| epsilon of Adam | eps | eps / out | eps / (out * layers) in blocks |
| residual sums | x + f(x) | x + f(x) | x + f(x) / layers |

`in`, `out` and `layers` are the growths of the input axes, of the output axes (all axes, of what is no kernel) and of
the depth. Decay does not change: a kernel loses eta * weight_decay of itself in a step. An input layer is a kernel
whose `in` is 1, an output layer one whose `out` is 1: no list says which is which.

mup: Yang et al., 2203.03466 (table 3), with the initialisation of 2310.17813 (condition 1), which agrees with it where
one side grows or both alike, and says what to do between. completep: Dey et al., 2505.01618, alpha = 1.
"""

import dataclasses
import math
from typing import Any

import jax

from scaling import axes
from scaling.errors import UserError
from scaling.models.mae import MAEConfig, abstract_mae

PARAMETRIZATIONS = ("standard", "mup", "completep")


_SCALES = ("attention_scale", "decoder_attention_scale", "residual_scale", "decoder_residual_scale")


@dataclasses.dataclass(frozen=True)
class ParametrizationConfig:
    """Which parametrization, and the base: the same model with other sizes.

    Attributes:
      name: see the module.
      width, depth, heads, head_dim, mlp, decoder_width, decoder_depth, decoder_heads: of the base; 0 for the model's.
        Where the width is another one, heads or head_dim and mlp are said too: a layer that did not grow keeps its
        learning rate.
    """

    name: str = "standard"
    width: int = 0
    depth: int = 0
    heads: int = 0
    head_dim: int = 0
    mlp: int = 0
    decoder_width: int = 0
    decoder_depth: int = 0
    decoder_heads: int = 0

    def base(self, model: MAEConfig) -> MAEConfig:
        """The model with the sizes of the base."""
        sizes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        return dataclasses.replace(model, **{field: size for field, size in sizes.items() if size})

    def check(self, model: MAEConfig) -> None:
        """Raises UserError for a name that is not offered, or a base that says nothing or is no model."""
        if self.name not in PARAMETRIZATIONS:
            raise UserError(f"parametrization.name={self.name!r} is not one of {', '.join(PARAMETRIZATIONS)}")
        same = self.base(model) == model
        if self.name != "standard" and self == ParametrizationConfig(self.name):
            raise UserError(
                f"parametrization.name={self.name} needs the sizes of the model that was tuned: parametrization.width=…"
            )
        if self.name == "standard" and not same:
            raise UserError("parametrization.name=standard has no base: it is the same at every size")
        for name in _SCALES if self.name != "standard" else ():
            if getattr(model, name) not in (getattr(type(model), name), getattr(self.resolve(model), name)):
                raise UserError(f"model.{name} follows from parametrization.name={self.name}; leave it as it is")
        self.base(model).check()
        self._check_proportions(model)

    def _check_proportions(self, model: MAEConfig) -> None:
        """Raises UserError for a base that is narrower in a part of the block only, by oversight."""
        base, unsaid = self.base(model), []
        if base.width != model.width:
            share = base.width / model.width
            heads = f"parametrization.heads={max(round(model.heads * share), 1)}"
            unsaid += [] if self.heads or self.head_dim else [heads]
            unsaid += [] if self.mlp else [f"parametrization.mlp={round(model.mlp * share)}"]
        if unsaid:
            raise UserError(
                f"parametrization.width={self.width}: the heads and the MLP of the base are needed too, else those of "
                f"the model are meant; in proportion to its width: {' '.join(unsaid)}"
            )
        inner, whole = base.heads * base.head_dim, model.heads * model.head_dim
        if whole == model.width and inner != base.width:
            raise UserError(
                f"parametrization.heads={base.heads} of head_dim={base.head_dim} make {inner}, the width of the base "
                f"is {base.width}: they are equal in the model; set parametrization.heads or parametrization.head_dim"
            )

    def resolve(self, model: MAEConfig) -> MAEConfig:
        """The model with what its forward pass takes from the parametrization; resolving twice changes nothing."""
        if self.name == "standard":
            return model
        plain = dataclasses.replace(model, attention_scale=0.0, decoder_attention_scale=0.0)
        base, deep = self.base(plain), self.name == "completep"
        return dataclasses.replace(
            model,
            attention_scale=base.scale * base.head_dim / model.head_dim,
            decoder_attention_scale=base.decoder.scale * base.decoder.head_dim / model.decoder.head_dim,
            residual_scale=base.depth / model.depth if deep else 1.0,
            decoder_residual_scale=base.decoder_depth / model.decoder_depth if deep else 1.0,
        )


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """Trees parallel to the parameters.

    Attributes:
      gradient: what gradients are multiplied by before Adam, which that leaves as it is but for its epsilon.
      learning_rate: what the updates are multiplied by.
    """

    gradient: Any
    learning_rate: Any


def multipliers(c: ParametrizationConfig, model: MAEConfig, names: Any) -> Multipliers:
    """Those of a model's parameters; `names` is the tree of their axis names."""
    growths = _growths(c, model, names)

    def gradient(n: axes.Names, g: axes.Growth) -> float:
        return g.outputs * (g.layers if c.name == "completep" else 1.0)

    return Multipliers(
        axes.map_named(gradient, names, growths), axes.map_named(lambda n, g: 1 / g.inputs, names, growths)
    )


def initial(params: Any, names: Any, model: MAEConfig, c: ParametrizationConfig) -> Any:
    """Parameters as the standard parametrization draws them -> as this one does."""
    if c.name == "standard":
        return params
    base, _ = abstract_mae(c.base(model))

    def scaled(n: axes.Names, x: jax.Array, small: jax.ShapeDtypeStruct, g: axes.Growth) -> jax.Array:
        if not axes.is_kernel(n):
            return x
        drawn, tuned = (1 / math.sqrt(sum(axes.fans(n, shape))) for shape in (x.shape, small.shape))
        return x * (tuned / drawn * g.inputs**-0.5 * min(1.0, math.sqrt(g.outputs / g.inputs)))

    return axes.map_named(scaled, names, params, base, _growths(c, model, names))


def _growths(c: ParametrizationConfig, model: MAEConfig, names: Any) -> Any:
    shapes, small = abstract_mae(model)[0], abstract_mae(c.base(model))[0]
    return axes.map_named(lambda n, x, y: axes.growth(n, x.shape, y.shape), names, shapes, small)
