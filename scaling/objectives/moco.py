"""Momentum contrast: each view of an image has to identify the other among the views of all images of the batch (MoCo
v3; Chen, Xie and He, 2104.02057).

The keys are made by a copy of encoder and projector that follows them slowly, and is updated before it makes them. The
loss of each image depends on the whole batch, so a step cannot be divided into microbatches. Held-out images are
contrasted within their own batch: the held-out loss, too, refers to `batch_size` images, or to fewer in a last batch
that is not full.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.compute.counting import Tokens, whole_image
from scaling.core.errors import UserError
from scaling.data.arrays import normalise
from scaling.data.targets import view_name
from scaling.models.config import ViTConfig
from scaling.models.moco import (
    Contrast,
    abstract_heads,
    as_published,
    contrasted,
    coordinate_sizes,
    head,
    init_heads,
)
from scaling.models.parameters import init_params
from scaling.models.stems.stem import Use
from scaling.models.vit import POOLS, ViT, abstract_vit, image_input
from scaling.objectives.base import Batch, Inputs, objective

VIEWS = 2
INITIALISATIONS = ("moco", "mae")
_MOMENTUM = "momentum"  # name of the auxiliary tree
_FOLLOWING = ("encoder", "projector")  # networks that it copies


@objective
@dataclasses.dataclass(frozen=True)
class MomentumContrast(Contrast):
    """The configuration of the objective. The published positions are `model.position=sincos_rows`.

    Attributes:
      momentum: fraction of itself that the momentum encoder keeps in the first step; it grows to 1 along a half cosine
        over the run.
      frozen_patches: whether the patch projection keeps its initial values, which stabilises the training of ViTs.
      initialisation: initialisation of the encoder: `moco`, with queries, keys and values as three matrices, or `mae`.
    """

    distillations: ClassVar[tuple[str, ...]] = ("similarities",)

    name: str = "moco"
    momentum: float = 0.99
    frozen_patches: bool = True
    initialisation: str = "moco"

    def check(self, model: ViTConfig) -> None:
        model.check()
        model.check_pretraining()
        for field in ("hidden", "outputs"):
            if getattr(self, field) < 1:
                raise UserError(f"objective.{field}={getattr(self, field)}: must be at least 1")
        if not self.temperature > 0:
            raise UserError(f"objective.temperature={self.temperature}: must be above 0; the published one is 0.2")
        if not 0 <= self.momentum <= 1:
            raise UserError(f"objective.momentum={self.momentum}: must be at least 0 and at most 1")
        if self.pool not in ("cls", "mean") or (self.pool == "cls" and not model.class_token):
            raise UserError(f"objective.pool={self.pool}: must be mean, or cls if the encoder has a class token")
        if self.initialisation not in INITIALISATIONS:
            known = ", ".join(INITIALISATIONS)
            raise UserError(f"objective.initialisation={self.initialisation}: must be one of {known}")

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        (shapes, names), (head_shapes, head_names) = abstract_vit(model), abstract_heads(model.width, _plain(self))
        return {"encoder": shapes, **head_shapes}, {"encoder": names, **head_names}

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        """Both views pass encoder and heads; without gradients, both pass encoder and projector once more as keys,
        and the patch projection if it is frozen. The products of queries and keys, 8 * 256 * batch_size operations
        per image, are not counted: for ViT-B and 4,096 images they are one in ten thousand.
        """
        plain = whole_image(model)
        if whole:
            return dataclasses.replace(plain, others=lambda p: 1)
        each = plain.attended or (Use(plain.encoder, queries=plain.encoder),) * model.depth
        attended = tuple(dataclasses.replace(use, times=VIEWS * use.times) for use in each)
        encoder, trained = VIEWS * plain.encoder, 0 if self.frozen_patches else VIEWS * plain.patches

        def keys(p: axes.Parameter) -> int:
            return VIEWS if p.path.split("/")[0] in _FOLLOWING else 0

        beside = Tokens(2 * VIEWS * plain.patches - trained, encoder, keys, attended)
        return Tokens(trained, encoder, lambda p: VIEWS, attended, forward_only=beside)

    def scaled(
        self, model: ViTConfig, base: "MomentumContrast", base_model: ViTConfig, deep: bool
    ) -> "MomentumContrast":
        """The projector's first kernel, drawn by its inputs alone, gets the scale that a parametrization expects of
        one drawn by inputs and outputs.
        """
        grown = model.width / base_model.width
        scale = (grown * (base_model.width + self.hidden) / (model.width + self.hidden)) ** 0.5
        return dataclasses.replace(self, projector_scale=scale)

    def resized(self, sizes: Mapping[str, int]) -> "MomentumContrast":
        return self

    def tokens_of_cut(self, model: ViTConfig) -> Tokens:
        """Tokens of the queries alone: the keys are those of the whole network."""
        frozen = VIEWS * whole_image(model).patches if self.frozen_patches else 0
        return dataclasses.replace(self.tokens(model), forward_only=Tokens(frozen, 0, lambda p: 0))

    def make(self, model: ViTConfig, inputs: Inputs) -> "Contrasting":
        return Contrasting(self, model, inputs)


def _plain(c: Contrast) -> Contrast:
    """The fields that decide the shapes."""
    return Contrast(hidden=c.hidden, outputs=c.outputs)


class Contrasting:
    """The objective; see `scaling.objectives.base.Objective` and `scaling.objectives.cuttable.Cuttable`."""

    divisible = False
    picture = draw = None

    def __init__(self, c: MomentumContrast, model: ViTConfig, inputs: Inputs):
        self._c, self._encoder, self._of = c, model, inputs
        self._model = ViT(model, jnp.dtype(inputs.dtype))
        self.names = c.abstract(model)[1]
        self.extra_names: Mapping[str, Any] = {_MOMENTUM: {part: self.names[part] for part in _FOLLOWING}}
        self.below_head = self._below_head() if c.frozen_patches else None

    def _below_head(self) -> Any:
        """Infinitely many layers for the frozen patch projection, none for all other parameters."""
        depths = axes.map_named(lambda names: np.zeros(()), self.names)
        depths["encoder"]["patch"] = axes.map_named(lambda names: np.full((), np.inf), self.names["encoder"]["patch"])
        return depths

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        image = image_input(self._encoder, size, jnp.uint8)
        return {view_name("image", view): image for view in range(VIEWS)}

    def init(self, seed: Any) -> Any:
        encoder = init_params(self._model, seed, image_input(self._encoder))
        if self._c.initialisation == "moco":
            encoder = as_published(encoder, self.names["encoder"])
        return {"encoder": encoder, **init_heads(seed, self._encoder.width, self._c)}

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {_MOMENTUM: jax.tree.map(jnp.copy, {part: params[part] for part in _FOLLOWING})}

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Adds the step size of the momentum encoder's update, the same for each image."""
        count = batch["image"].shape[0]
        if count < 2:
            raise UserError(
                f"batch_size={count}: contrast and batch statistics need several images in the batch; set a larger one"
            )
        moved = 0.5 * (1 + jnp.cos(jnp.pi * (step.astype(float) / self._of.steps))) * (1 - self._c.momentum)
        return {**batch, "moved": jnp.full(count, moved)}

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        extra, inputs = self.shared(params, extra, inputs)
        found, _ = self.told(params, inputs)
        means = {name: x.mean() for name, x in found.items()}
        return means.pop("loss"), (extra, means)

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Held-out images contrasted within their batch; images of weight 0 are excluded from statistics and keys."""
        found, _ = self.told(params, self.held_out(extra, batch))
        weight = batch["weight"]
        return {name: jnp.where(weight > 0, x * weight, 0).sum() for name, x in found.items()} | {
            "weight": weight.sum()
        }

    def coordinates(self, params: Any, batch: Batch) -> Batch:
        images = normalise(batch["image"], self._of.mean, self._of.std)
        return coordinate_sizes(params, images, self._encoder, self._c)

    def shared(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[dict[str, Any], Batch]:
        """The momentum encoder is updated before it makes the keys; all widths share those of the whole network, as
        in SlimCLR (mzhaoshuai/SlimCLR, `s_mocov3.py`).
        """
        moved = inputs["moved"][0]
        followed = jax.lax.stop_gradient({part: params[part] for part in _FOLLOWING})
        # Written so that frozen parameters keep their values to the last bit.
        momentum = jax.tree.map(lambda slow, new: slow + moved * (new - slow), extra[_MOMENTUM], followed)
        return {_MOMENTUM: momentum}, {**inputs, "keys": self._projected(momentum, inputs)}

    def held_out(self, extra: dict[str, Any], batch: Batch) -> Batch:
        return {**batch, "keys": self._projected(extra[_MOMENTUM], batch)}

    def told(self, params: Any, inputs: Batch) -> tuple[Batch, Batch]:
        weight = inputs.get("weight")
        queries = head(params["predictor"], self._projected(params, inputs), weight)
        losses, right, logits = contrasted(queries, inputs["keys"], self._c.temperature, weight)
        return {"loss": losses, "contrast_accuracy": right}, {"similarities": logits}

    def apart(self, what: str, found: jax.Array, wanted: jax.Array) -> jax.Array:
        """Kullback-Leibler divergence of the distributions over the keys, summed over both views, times 2 tau."""
        found, wanted = jax.nn.log_softmax(found), jax.nn.log_softmax(wanted)
        return 2 * self._c.temperature * (jnp.exp(wanted) * (wanted - found)).sum((1, 2))

    def _projected(self, p: Any, batch: Batch) -> jax.Array:
        """Projections of both views of each image of a batch [B, V, E]; images of weight 0 are excluded from
        statistics.
        """
        views = jnp.stack([batch[view_name("image", view)] for view in range(VIEWS)], axis=1)
        images = normalise(views.reshape(-1, *views.shape[2:]), self._of.mean, self._of.std)
        encoder = p["encoder"]
        if self._c.frozen_patches:
            encoder = {**encoder, "patch": jax.lax.stop_gradient(encoder["patch"])}
        tokens: Any = self._model.apply({"params": encoder}, images)
        pooled = POOLS[self._c.pool](tokens, self._encoder)
        return head(p["projector"], pooled.reshape(-1, VIEWS, pooled.shape[-1]), batch.get("weight"))
