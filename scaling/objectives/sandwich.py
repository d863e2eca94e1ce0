"""One step of slimmable training, as `scaling.objectives.slimmable` configures it.

Every width has a forward and a backward pass of its own, and the gradient of the summed losses is written by hand:
differentiating a choice between branches would save the residuals of every branch.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax

from scaling import axes
from scaling.models.config import ViTConfig
from scaling.models.vit import cuttable
from scaling.objectives.base import Batch, Inputs
from scaling.objectives.cuttable import Cuttable, CuttableConfig
from scaling.slimming.cutting import cut

T = TypeVar("T")

_DRAWN, _BEGUN = "widths_drawn", "begun"  # names of inputs
_STREAM = 2**31 - 2  # random stream of a step; those of images are numbered from 0


class Cut(NamedTuple):
    """A narrower network: its width, the units kept of each axis, and the configurations of encoder and objective."""

    width: float
    plan: Mapping[str, int]
    model: ViTConfig
    objective: CuttableConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Treatment of the widths; the fields are those of `scaling.objectives.slimmable.Slimmable`."""

    random: int
    with_smallest: bool
    distillation: str
    distilled: float
    weights: str
    slow_start: float


def trained_of(c: Any, narrower: tuple[T, ...]) -> tuple[T, ...]:
    """Those of the narrower networks, from the smallest on, that a recipe trains: the smallest, and those drawn."""
    return (*(narrower[:1] if c.with_smallest else ()), *(narrower[1:] if c.random else ()))


class _Passed(NamedTuple):
    """Result of one narrower network, or the sum over several.

    Attributes:
      gradient: weighted gradient, with the structure of the full network's parameters.
      loss: weighted loss, with distillation, [].
      widths: the width s, or the sum of the widths, [].
      metrics: see `Sandwich.loss`.
    """

    gradient: Any
    loss: jax.Array
    widths: jax.Array
    metrics: Batch


class Narrow:
    """The objective of a cut network, as a function of the parameters of the full one."""

    def __init__(self, c: Cut, model: ViTConfig, inputs: Inputs):
        self.cut, self.width, self._plan = c, c.width, c.plan
        self.objective = cast(Cuttable, c.objective.make(c.model, inputs))
        self._fixed = cuttable({}, model, c.plan)[0]  # fixed positions, which are not parameters of the full network

    def of(self, params: Any) -> Any:
        """The parameters of the cut network."""
        encoder = {**params["encoder"], **self._fixed}
        return self._leading({**params, "encoder": encoder}, self.objective.names)

    def kept(self, small: Any) -> Any:
        """The part of a tree like the cut network's parameters that the full network has too."""
        return {**small, "encoder": {group: x for group, x in small["encoder"].items() if group not in self._fixed}}

    def shared_part(self, tree: Any) -> Any:
        """The cut network's part of a tree like the full network's parameters."""
        return self._leading(tree, self.kept(self.objective.names))

    def _leading(self, tree: Any, names: Any) -> Any:
        """Gathers a dimension before it is cut: XLA's partitioner miscounts parts of a sharded one."""

        def at_hand(n: axes.Names, x: Any) -> Any:
            whole = {mesh_axis for name in n if name in self._plan for mesh_axis in axes.axis(name).mesh}
            return axes.constrain(x, *n, whole=whole) if whole else x

        return cut(axes.map_named(at_hand, names, tree), names, self._plan)


class Sandwich:
    """The objective; see `scaling.objectives.base.Objective`.

    Args:
      recipe: treatment of the widths in a step.
      full: the objective at the full width.
      narrow: the objectives at the other widths, from the smallest; empty if only the full width is trained.
      steps: number of steps of the run.
    """

    def __init__(self, recipe: Recipe, full: Cuttable, narrow: tuple[Narrow, ...], steps: int):
        self._c, self._full, self._narrow, self._steps = recipe, full, narrow, steps
        self.names, self.extra_names, self.below_head = full.names, full.extra_names, full.below_head
        self.divisible, self.picture, self.draw = full.divisible, full.picture, full.draw
        self.coordinates, self.abstract_batch = full.coordinates, full.abstract_batch
        self.init, self.init_extra = full.init, full.init_extra
        self._summed = jax.custom_vjp(lambda *arguments: self._with_gradient(*arguments)[0])
        self._summed.defvjp(self._with_gradient, _backward)

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Adds the widths of this step, as indices of the networks between the smallest and the full one, and
        whether they are trained yet; the same for each image.
        """
        inputs = self._full.inputs(seed, step, batch)
        if not self._narrow:
            return inputs
        count = len(jax.tree.leaves(batch)[0])
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), _STREAM)
        drawn = jax.random.randint(key, (self._c.random,), 0, max(len(self._narrow) - 1, 1))
        begun = step >= round(self._c.slow_start * self._steps)
        return {
            **inputs,
            _DRAWN: jnp.broadcast_to(drawn, (count, self._c.random)),
            _BEGUN: jnp.broadcast_to(begun, (count,)),
        }

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        """The weighted sum over the widths of the step. Further metrics are those of the full width and, for every
        width, its `loss` without distillation, and of its unweighted gradient `grad_norm` and `grad_cosine`, the cosine
        with the full width's among the parameters that both have; 0 for widths that are not trained yet.
        """
        if not self._narrow:
            return self._full.loss(params, extra, inputs)
        found: tuple[jax.Array, tuple[dict[str, Any], Batch]] = self._summed(params, extra, inputs)
        return found

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Held-out loss of the full width, of the smallest and of one in the middle."""
        sums = self._full.evaluate(params, extra, batch)
        if not self._narrow:
            return sums
        given, weight = self._full.held_out(extra, batch), batch["weight"]
        for name, place in {"smallest": 0, "middle": len(self._narrow) // 2}.items():
            network = self._narrow[place]
            loss = network.objective.told(network.of(params), given)[0]["loss"]
            sums[f"loss_{name}"] = jnp.where(weight > 0, loss * weight, 0).sum()
        return sums

    def _with_gradient(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[Any, Any]:
        """The result of `loss`, and the gradient of the sum."""
        drawn, begun = inputs[_DRAWN][0], inputs[_BEGUN][0]
        extra, given = self._full.shared(params, extra, {k: x for k, x in inputs.items() if k not in (_DRAWN, _BEGUN)})

        def of_full(p: Any) -> tuple[jax.Array, tuple[Batch, Any]]:
            found, told = self._full.told(p, given)
            return found["loss"].mean(), (found, told.get(self._c.distillation))

        (loss, (found, wanted)), gradient = jax.value_and_grad(of_full, has_aux=True)(params)

        def train() -> _Passed:
            return self._narrower(drawn, params, given, wanted, gradient)

        if self._c.slow_start:
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(train))
            narrower = jax.lax.cond(begun, train, lambda: nothing)
        else:
            narrower = train()
        metrics = {name: x.mean() for name, x in found.items() if name != "loss"} | narrower.metrics
        metrics |= {"loss_full": loss, "grad_norm_full": optax.global_norm(gradient)}
        if self._c.weights == "full":
            weight = 1 + narrower.widths
            loss, gradient = loss * weight, jax.tree.map(lambda g: g * weight, gradient)
        return (loss + narrower.loss, (extra, metrics)), jax.tree.map(jnp.add, gradient, narrower.gradient)

    def _narrower(self, drawn: jax.Array, *given: Any) -> _Passed:
        """The sum over the narrower networks of a step; metrics are named by width."""
        branches = [partial(self._passed, network) for network in self._narrow]
        if self._c.with_smallest:
            found = branches[0](*given)
        else:
            found = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(branches[0], *given))
        metrics = {f"{name}_smallest": x for name, x in found.metrics.items() if self._c.with_smallest}
        found = found._replace(metrics={})
        if not self._c.random:
            return found._replace(metrics=metrics)

        def add(total: _Passed, i: jax.Array) -> tuple[_Passed, Batch]:
            one: _Passed = jax.lax.switch(i, branches[1:], *given)
            numbers = {**one.metrics, "width": one.widths}
            return jax.tree.map(jnp.add, total, one._replace(metrics={})), numbers

        found, numbers = jax.lax.scan(add, found, drawn)  # one choice in a loop: each branch is compiled once
        metrics |= {f"{name}_random_{i + 1}": x[i] for name, x in numbers.items() for i in range(self._c.random)}
        return found._replace(metrics=metrics)

    def _passed(self, network: Narrow, params: Any, given: Batch, wanted: Any, gradient: Any) -> _Passed:
        """A forward and a backward pass of one narrower network.

        Args:
          network: the narrower network.
          params, given: parameters of the full network, and the shared inputs.
          wanted: output of the full network to be learned; None without distillation.
          gradient: gradient of the full network.
        """
        small, widen = jax.vjp(network.of, params)

        def loss(p: Any) -> tuple[jax.Array, jax.Array]:
            found, told = network.objective.told(p, given)
            own = found["loss"].mean()
            if wanted is None:
                return own, own
            apart = network.objective.apart(self._c.distillation, told[self._c.distillation], wanted).mean()
            return (1 - self._c.distilled) * own + self._c.distilled * apart, own

        (total, own), g = jax.value_and_grad(loss, has_aux=True)(small)
        norm, full = optax.global_norm(g), network.shared_part(gradient)
        along = sum((x * y).sum() for x, y in zip(*map(jax.tree.leaves, (network.kept(g), full)), strict=True))
        cosine = along / jnp.maximum(norm * optax.global_norm(full), jnp.finfo(norm.dtype).tiny)
        weight = network.width if self._c.weights == "width" else 1.0
        (wide,) = widen(jax.tree.map(lambda x: x * weight, g) if weight != 1 else g)
        metrics = {"loss": own, "grad_norm": norm, "grad_cosine": cosine}
        return _Passed(wide, total * weight, jnp.full_like(norm, network.width), metrics)


def _backward(gradient: Any, g: Any) -> tuple[Any, None, None]:
    return jax.tree.map(lambda x: x * g[0], gradient), None, None
