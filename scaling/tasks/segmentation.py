"""Semantic segmentation: an encoder and a head trained on images with masks.

The loss is the cross-entropy averaged over all labelled pixels of the global batch; mmsegmentation divides by all
pixels unless `avg_non_ignore=True`, so that void areas reduce its loss.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from scaling.compute.counting import Tokens, whole_image
from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.data.arrays import normalise
from scaling.data.sources.base import Info
from scaling.data.targets import Masks
from scaling.evaluation.scores import Interval
from scaling.evaluation.segmentation import METRICS, SegmentationTotals, confusion_matrix
from scaling.evaluation.windows import likeliest, not_finite
from scaling.models.classifier import layers_below_head
from scaling.models.config import ViTConfig
from scaling.models.heads.layers import first_statistics, statistics_names, uses
from scaling.models.heads.loss import pixel_losses, shares
from scaling.models.heads.norms import updated
from scaling.models.heads.spatial import resize
from scaling.models.parameters import init_params
from scaling.models.segmenter import (
    Segmenter,
    SegmenterConfig,
    abstract_segmenter,
    drawn_keep,
    init_head,
    segmenter_input,
)
from scaling.models.vit import image_input
from scaling.objectives.base import Batch, Inputs, task

_STATISTICS = "statistics"  # statistics of batch norms, kept beside the parameters


@task
@dataclasses.dataclass(frozen=True)
class Segmenting:
    """The head, and how it is trained.

    Attributes:
      classes: names of the classes; follow from the data and are not set.
      ignore: value of unlabelled pixels; follows from the data.
      head: `upernet`, `mlp` or `linear`; see `scaling.models.heads.heads`.
      layers, channels, auxiliary_channels, norm, norm_groups, frozen: see `SegmenterConfig`.
      auxiliary_weight: weight of the loss of upernet's auxiliary head; 0 leaves this head out.
      dropout: probability with which a channel of the last map of upernet or mlp is dropped, for the whole image.
    """

    takes: ClassVar[tuple[str, ...]] = ("mask",)
    of_data: ClassVar[tuple[str, ...]] = ("classes", "ignore")

    name: str = "segmentation"
    classes: tuple[str, ...] = ()
    ignore: int = 255
    head: str = "upernet"
    layers: tuple[int, ...] = ()
    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    norm: str = "batch"
    norm_groups: int = 32
    dropout: float = 0.1
    frozen: bool = False

    def with_data(self, info: Info) -> Self:
        masks = info.target("mask")
        assert isinstance(masks, Masks)  # guaranteed by `takes`
        return dataclasses.replace(self, classes=masks.classes, ignore=masks.ignore)

    def with_encoder(self, model: ViTConfig) -> SegmenterConfig:
        """Encoder and head together."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields = {name: value for name, value in own.items() if name in _OF_THE_MODEL}
        auxiliary = self.head == "upernet" and self.auxiliary_weight > 0
        whole = copied(SegmenterConfig, model)
        return dataclasses.replace(whole, **fields, classes=max(len(self.classes), 1), auxiliary=auxiliary)

    def check(self, model: ViTConfig) -> None:
        whole = self.with_encoder(model)
        if self.classes:
            whole.check()
        else:  # a recipe, whose encoder is not known yet
            whole.check_fields()
        if self.auxiliary_weight < 0:
            raise UserError(f"task.auxiliary_weight={self.auxiliary_weight}: must not be negative; 0 for none")
        if not 0 <= self.dropout < 1:
            raise UserError(f"task.dropout={self.dropout}: must be at least 0 and below 1")

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        return abstract_segmenter(self.with_encoder(model))

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        layers = self.with_encoder(model).head_layers
        return dataclasses.replace(whole_image(model), others=functools.partial(uses, layers))

    def scaled(self, model: ViTConfig, base: "Segmenting", base_model: ViTConfig, deep: bool) -> "Segmenting":
        return self

    def make(self, model: ViTConfig, inputs: Inputs) -> "Segmentation":
        return Segmentation(self, model, inputs)


_OF_THE_MODEL = ("head", "layers", "channels", "auxiliary_channels", "norm", "norm_groups", "frozen")


class Segmentation:
    """The objective; see `scaling.tasks.base.Task`."""

    picture = draw = coordinates = detections = None

    def __init__(self, task: Segmenting, model: ViTConfig, inputs: Inputs):
        self.task, self._c, self._of = task, task.with_encoder(model), inputs
        self._model = Segmenter(self._c, jnp.dtype(inputs.dtype))
        self.names = abstract_segmenter(self._c)[1]
        self.below_head = layers_below_head(self.names, self._c, self._c.frozen)
        kept = statistics_names(self._c.head_layers) if self._c.norm == "batch" else {}
        self.extra_names: Mapping[str, Any] = {_STATISTICS: kept} if kept else {}
        self.divisible = not kept

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        image, masks = image_input(self._c, size, jnp.uint8), Masks(self.task.classes, self.task.ignore)
        return {"image": image, "mask": jax.ShapeDtypeStruct(image.shape[:3], masks.dtype)}

    def init(self, seed: Any) -> Any:
        return init_params(self._model, seed, segmenter_input(self._c))

    def init_head(self, seed: int) -> Any:
        return init_head(self._c, seed)

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {name: first_statistics(self._c.head_layers) for name in self.extra_names}

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Adds the weight of each image in the loss, and the channels that it keeps."""
        key = jax.random.fold_in(jax.random.key(seed), step)
        keep = drawn_keep(self._c, key, batch["image"].shape[0], self.task.dropout)
        share = shares(batch["mask"], self.task.ignore)
        return {**batch, "share": share, **{f"keep_{name}": x for name, x in keep.items()}}

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        keep = {name: inputs[f"keep_{name}"] for name in ("logits", "auxiliary") if f"keep_{name}" in inputs}
        said, seen = self._apply(params, None, inputs["image"], keep)
        means = {name: (self._losses(x, inputs).sum((1, 2)) * inputs["share"]).mean() for name, x in said.items()}
        after = {name: updated(extra[name], seen) for name in self.extra_names}
        if "auxiliary" not in means:
            return means["logits"], (after, {})
        return means["logits"] + self.task.auxiliary_weight * means["auxiliary"], (
            after,
            {"auxiliary_loss": means["auxiliary"]},
        )

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """The loss of the main head and the accuracy over labelled pixels, each counted once."""
        said = self.logits(params, extra, batch["image"])
        counts = (batch["mask"] != self.task.ignore) * batch["weight"][:, None, None]
        right = self.labels(said, batch["mask"].shape[1:3]) == batch["mask"]
        losses = self._losses(said, batch)
        return {"loss": (losses * counts).sum(), "accuracy": (right * counts).sum(), "weight": counts.sum()}

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Confusion matrix of each image, rows by true class [B, K, K], and whether its logits are finite [B]."""
        truth, classes = batch["mask"].astype(jnp.int32), self._c.classes
        logits = self.logits(params, extra, batch["image"])
        predicted = self.labels(logits, truth.shape[1:3])
        counts = truth != self.task.ignore
        pairs = jnp.where(counts, truth, 0) * classes + predicted

        def count(pairs: jax.Array, counts: jax.Array) -> jax.Array:
            return jnp.zeros(classes**2, jnp.int32).at[pairs.ravel()].add(counts.ravel().astype(jnp.int32))

        confusion = jax.vmap(count)(pairs, counts).reshape(-1, classes, classes)
        return {"confusion": confusion, "finite": jnp.isfinite(logits).all((1, 2, 3))}

    def pixel_counts(self, logits: np.ndarray, targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Like `predict`, on the host, for rows of one image: logits [rows, width, K] and `mask` [rows, width]."""
        told, truth = likeliest(logits), targets["mask"]
        return {"confusion": confusion_matrix(told, truth, self._c.classes, self.task.ignore)[:, :-1]}

    def predictions(self, rows: Mapping[str, np.ndarray]) -> "Segmented":
        if bad := int((~rows.get("finite", np.ones(1, bool))).sum()):
            raise not_finite(f"{bad:,} of {len(rows['finite']):,} images")
        totals = SegmentationTotals(self.task.classes, self.task.ignore)
        for matrix in rows["confusion"]:
            totals.add_matrix(matrix)
        return Segmented(totals)

    def summary(self, predictions: "Segmented", source: str, images: int) -> str:
        return f"segmentation on {source}, {images:,} images to train on\n{predictions}"

    @staticmethod
    def labels(logits: jax.Array, size: tuple[int, ...]) -> jax.Array:
        """The likeliest class of every pixel. [B, h, w, K] -> int32 [B, *size]."""
        return resize(logits, size).argmax(-1).astype(jnp.int32)

    def pixel_logits(self, params: Any, extra: dict[str, Any], images: jax.Array) -> jax.Array:
        """Unnormalised images [B, h, w, C] -> float32 [B, h, w, K], logits of every pixel."""
        return resize(self.logits(params, extra, images), images.shape[1:3])

    def logits(self, params: Any, extra: dict[str, Any], images: jax.Array) -> jax.Array:
        """Unnormalised images -> float32 [B, h, w, K]; batch norm uses the statistics of training."""
        said: jax.Array = self._apply(params, extra.get(_STATISTICS, {}), images, {})[0]["logits"]
        return said

    def _losses(self, logits: jax.Array, batch: Batch) -> jax.Array:
        return pixel_losses(logits, batch["mask"], self.task.ignore)

    def _apply(self, params: Any, running: Any, images: jax.Array, keep: Batch) -> Any:
        return self._model.apply({"params": params}, normalise(images, self._of.mean, self._of.std), running, keep)


@dataclasses.dataclass(frozen=True)
class Segmented:
    """Pixel predictions on a test split, with the truth."""

    totals: SegmentationTotals

    def scores(self) -> dict[str, float]:
        found = self.totals.scores()
        return {name: getattr(found, name) for name in METRICS}

    def intervals(self) -> dict[str, Interval]:
        return self.totals.intervals()

    def __str__(self) -> str:
        return str(self.totals)
