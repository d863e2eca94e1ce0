"""Parametrizations: how initialisation, learning rates and residual sums depend on the size of a model.

A parametrization is defined relative to a smaller model, the base, in which the learning rate was tuned. Everything
follows from which dimensions of a parameter are larger than in the base, and from the names of those dimensions:

| | standard | mup | completep |
|---|---|---|---|
| kernels at the start, standard deviation | Xavier | base / sqrt(in) * min(1, sqrt(out / in)) | as mup |
| learning rate of kernels | eta | eta / in | as mup |
| scale of the logits | head_dim^-1/2 | base / head_dim growth | as mup |
| epsilon of Adam | eps | eps / out | eps / (out * layers) in blocks |
| residual sums | x + f(x) | x + f(x) | x + f(x) / layers |

`in`, `out` and `layers` are the growths of the input axes, of the output axes (of all axes, for a parameter that is not
a kernel) and of the depth. Decay does not change: a kernel loses eta * weight_decay of itself per step. An input layer
is a kernel whose `in` is 1, an output layer one whose `out` is 1: no list of layers is needed.

mup: Yang et al., 2203.03466 (table 3), with the initialisation of 2310.17813 (condition 1), which agrees with it if one
side grows or both grow alike, and also covers the cases in between. completep: Dey et al., 2505.01618, alpha = 1.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.objectives import ObjectiveConfig

PARAMETRIZATIONS = ("standard", "mup", "completep")


_SCALES = ("attention_scale", "residual_scale")  # endings of the names of fields
Networks = tuple[ViTConfig, ObjectiveConfig]  # the encoder, and the other networks of pretraining


@dataclasses.dataclass(frozen=True)
class ParametrizationConfig:
    """The parametrization, and its base: the same networks with other sizes.

    Attributes:
      name: see the module.
      width, depth, heads, head_dim, mlp, decoder_width, decoder_depth, decoder_heads: fields of the base's encoder or
        objective; 0 for the model's own. If the width differs, mlp and heads or head_dim must be set too, because a
        layer of the same size as in the base keeps its learning rate.
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

    def base(self, model: ViTConfig, objective: ObjectiveConfig) -> Networks:
        """The networks with the sizes of the base."""
        return _sized(model, self._sizes()), _sized(objective, self._sizes())

    def _sizes(self) -> dict[str, int]:
        sizes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        return {field: size for field, size in sizes.items() if size}

    def check(self, model: ViTConfig, objective: ObjectiveConfig) -> None:
        """Raises UserError for an unknown name, or a base that sets no size or is not a valid model."""
        if self.name not in PARAMETRIZATIONS:
            raise UserError(f"parametrization.name={self.name!r}: must be one of {', '.join(PARAMETRIZATIONS)}")
        for field in self._sizes():
            if not any(hasattr(networks, field) for _, networks in (*_within(model), *_within(objective))):
                raise UserError(
                    f"parametrization.{field}: the objective {objective.name} has no such size; leave it out"
                )
        same = self.base(model, objective) == (model, objective)
        if self.name != "standard" and self == ParametrizationConfig(self.name):
            raise UserError(
                f"parametrization.name={self.name} needs the sizes of the base, the model that was tuned; set "
                "parametrization.width=…"
            )
        if self.name == "standard" and not same:
            raise UserError("parametrization.name=standard has no base; leave its sizes out")
        resolved = self.resolve(model, objective)
        for part, ours, right in zip(("model", "objective"), (model, objective), resolved, strict=True):
            for (place, mine), (_, theirs) in zip(_within(ours, part), _within(right), strict=True):
                for name in _scales(mine):
                    if getattr(mine, name) not in (getattr(type(mine), name), getattr(theirs, name)):
                        raise UserError(
                            f"{place}.{name} follows from parametrization.name={self.name}; leave it as it is"
                        )
        base_model, base_objective = self.base(model, objective)
        base_model.check()
        base_objective.check(base_model)
        self._check_proportions(model, base_model)

    def _check_proportions(self, model: ViTConfig, base: ViTConfig) -> None:
        """Raises UserError for a base that is narrower in only a part of the block, which is usually an oversight."""
        unsaid = []
        if base.width != model.width:
            share = base.width / model.width
            heads = f"parametrization.heads={max(round(model.heads * share), 1)}"
            unsaid += [] if self.heads or self.head_dim else [heads]
            unsaid += [] if self.mlp else [f"parametrization.mlp={round(model.mlp * share)}"]
        if unsaid:
            raise UserError(
                f"parametrization.width={self.width}: the heads and the MLP of the base are needed too, otherwise "
                f"those of the model are used; in proportion to the width they are: {' '.join(unsaid)}"
            )
        inner, whole = base.heads * base.head_dim, model.heads * model.head_dim
        if whole == model.width and inner != base.width:
            raise UserError(
                f"parametrization.heads={base.heads} of head_dim={base.head_dim} make {inner}, but the width of the "
                f"base is {base.width}, and in the model the two are equal; set parametrization.heads or "
                "parametrization.head_dim"
            )

    def resolve(self, model: ViTConfig, objective: ObjectiveConfig) -> Networks:
        """The networks with the parametrization's forward-pass factors; resolving twice changes nothing."""
        if self.name == "standard":
            return model, objective
        base, base_objective = self.base(_plain(model), _plain(objective))
        deep = self.name == "completep"
        attention, residual = model.scales_from(base, deep)
        resolved = dataclasses.replace(model, attention_scale=attention, residual_scale=residual)
        return resolved, objective.scaled(model, base_objective, base, deep)


def _wrapped(networks: Any) -> dict[str, Any]:
    """The configurations wrapped by a configuration, such as that of another objective."""
    values = {f.name: getattr(networks, f.name) for f in dataclasses.fields(networks)}
    return {name: x for name, x in values.items() if dataclasses.is_dataclass(x)}


def _within(networks: Any, place: str = "") -> list[tuple[str, Any]]:
    """A configuration and those that it wraps, each with its path."""
    wrapped = (_within(x, f"{place}.{name}") for name, x in _wrapped(networks).items())
    return [(place, networks), *itertools.chain.from_iterable(wrapped)]


def _scales(networks: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(networks) if f.name.endswith(_SCALES)]


def _plain(networks: Any) -> Any:
    """The configurations without the factors set by a parametrization."""
    wrapped = {name: _plain(x) for name, x in _wrapped(networks).items()}
    return dataclasses.replace(
        networks, **wrapped, **{name: getattr(type(networks), name) for name in _scales(networks)}
    )


def _sized(networks: Any, sizes: dict[str, int]) -> Any:
    wrapped = {name: _sized(x, sizes) for name, x in _wrapped(networks).items()}
    own = {field: size for field, size in sizes.items() if hasattr(networks, field)}
    return dataclasses.replace(networks, **wrapped, **own)


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """Trees parallel to the parameters.

    Attributes:
      gradient: factor applied to gradients before Adam, which is invariant to it except through its epsilon.
      learning_rate: factor applied to the updates.
    """

    gradient: Any
    learning_rate: Any


def multipliers(c: ParametrizationConfig, model: ViTConfig, objective: ObjectiveConfig) -> Multipliers:
    """Multipliers of the parameters of an encoder and its objective."""
    (shapes, names), (small, _) = _abstract(c, model, objective)
    growths = _growths(names, shapes, small)

    def gradient(n: axes.Names, g: axes.Growth) -> float:
        return g.outputs * (g.layers if c.name == "completep" else 1.0)

    return Multipliers(
        axes.map_named(gradient, names, growths), axes.map_named(lambda n, g: 1 / g.inputs, names, growths)
    )


def initial(params: Any, c: ParametrizationConfig, model: ViTConfig, objective: ObjectiveConfig) -> Any:
    """Parameters in this parametrization, from those drawn in the standard one."""
    if c.name == "standard":
        return params
    (shapes, names), (base, _) = _abstract(c, model, objective)

    def scaled(n: axes.Names, x: jax.Array, small: jax.ShapeDtypeStruct, g: axes.Growth) -> jax.Array:
        if not axes.is_kernel(n):
            return x
        drawn, tuned = (1 / math.sqrt(sum(axes.fans(n, shape))) for shape in (x.shape, small.shape))
        return x * (tuned / drawn * g.inputs**-0.5 * min(1.0, math.sqrt(g.outputs / g.inputs)))

    return axes.map_named(scaled, names, params, base, _growths(names, shapes, base))


def _abstract(c: ParametrizationConfig, model: ViTConfig, objective: ObjectiveConfig) -> tuple[Any, Any]:
    """Shapes and names of all parameters, for the model and for the base."""
    base_model, base_objective = c.base(model, objective)
    return objective.abstract(model), base_objective.abstract(base_model)


def _growths(names: Any, shapes: Any, small: Any) -> Any:
    return axes.map_named(lambda n, x, y: axes.growth(n, x.shape, y.shape), names, shapes, small)
