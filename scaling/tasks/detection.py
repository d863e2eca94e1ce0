"""Detection of oriented boxes: an encoder, ViTDet's pyramid and a head trained on images with boxes.

Shapes are static: a batch has room for `most` objects per image, and the number of dropped objects is reported. The
losses are added and, as in mmdetection, each is divided by its number of anchors or proposals in the global batch.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from scaling.boxes.convert import from_quadrilaterals
from scaling.compute.counting import Tokens, whole_image
from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.data.arrays import normalise
from scaling.data.sources.base import Info
from scaling.data.targets import Boxes
from scaling.evaluation.detection import RULES, Rules
from scaling.models.classifier import layers_below_head
from scaling.models.config import ViTConfig
from scaling.models.detector import DetectorConfig, DetectorNetwork, abstract_detector, init_head
from scaling.models.heads.detection import Found, Losses, Truth
from scaling.models.heads.layers import uses
from scaling.models.parameters import init_params
from scaling.models.vit import image_input
from scaling.objectives.base import EVALUATION, Batch, Inputs, task
from scaling.tasks.detected import Detected, detected

_STAGES = 2  # stages that sample


@task
@dataclasses.dataclass(frozen=True)
class Detecting:
    """The head, and how it is trained.

    Attributes:
      classes: names of the classes; follow from the data and are not set.
      rules: scoring rules of the test split; see `scaling.evaluation.detection.RULES`.
      most: maximum number of objects per image in a batch.
      least_side: minimum side in pixels; objects with a shorter side are left out of training (as in mmrotate, 2).
      head, channels, hidden, anchor_size, proposals, anchor_samples, roi_samples, detections, least_score, frozen: see
        `DetectorConfig`.
    """

    takes: ClassVar[tuple[str, ...]] = ("boxes",)
    of_data: ClassVar[tuple[str, ...]] = ("classes",)

    name: str = "detection"
    classes: tuple[str, ...] = ()
    rules: str = "dota"
    most: int = 256
    least_side: float = 2.0
    head: str = "oriented_rcnn"
    channels: int = 256
    hidden: int = 1024
    anchor_size: float = 1.0
    proposals: int = 2000
    anchor_samples: int = 256
    roi_samples: int = 512
    detections: int = 2000
    least_score: float = 0.05
    frozen: bool = False

    def with_data(self, info: Info) -> Self:
        boxes = info.target("boxes")
        assert isinstance(boxes, Boxes)  # guaranteed by `takes`
        return dataclasses.replace(self, classes=boxes.classes)

    def with_encoder(self, model: ViTConfig) -> DetectorConfig:
        """Encoder and head together."""
        return dataclasses.replace(copied(DetectorConfig, model, self), classes=max(len(self.classes), 1))

    def check(self, model: ViTConfig) -> None:
        whole = self.with_encoder(model)
        if self.classes:
            whole.check()
        else:  # a recipe, whose encoder is not known yet
            whole.check_fields()
        if self.rules not in RULES:
            raise UserError(f"task.rules={self.rules!r}: must be one of {', '.join(RULES)}")
        if self.most < 1:
            raise UserError(f"task.most={self.most}: must be at least 1; it is the maximum number of objects per image")
        if self.least_side < 0:
            raise UserError(
                f"task.least_side={self.least_side}: must not be negative; 0 keeps all objects with an area"
            )

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        return abstract_detector(self.with_encoder(model))

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        layers = self.with_encoder(model).head_layers
        return dataclasses.replace(whole_image(model), others=functools.partial(uses, layers))

    def scaled(self, model: ViTConfig, base: "Detecting", base_model: ViTConfig, deep: bool) -> "Detecting":
        return self

    def make(self, model: ViTConfig, inputs: Inputs) -> "Detection":
        return Detection(self, model, inputs)


class Detection:
    """The objective; see `scaling.tasks.base.Task`."""

    extra_names: Mapping[str, Any] = {}
    divisible = False  # the losses are normalised by samples of all images
    picture = draw = coordinates = None
    pixel_logits = pixel_counts = None

    def __init__(self, task: Detecting, model: ViTConfig, inputs: Inputs):
        self.task, self._c, self._of = task, task.with_encoder(model), inputs
        self._model = DetectorNetwork(self._c, jnp.dtype(inputs.dtype))
        self.names = abstract_detector(self._c)[1]
        self.below_head = layers_below_head(self.names, self._c, self._c.frozen)

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        target = Boxes(self.task.classes, self.task.most)
        of_one = target.empty(1, self._c.image_shape)
        boxes = {name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for name, x in of_one.items()}
        return {"image": image_input(self._c, size, jnp.uint8), **boxes}

    def init(self, seed: Any) -> Any:
        return init_params(self._model, seed, image_input(self._c))

    def init_head(self, seed: int) -> Any:
        return init_head(self._c, seed)

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {}

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Adds keys for every image, by which anchors and proposals are sampled."""
        key = jax.random.fold_in(jax.random.key(seed), step)
        return {**batch, "keys": _keys(key, jnp.arange(batch["image"].shape[0]))}

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        truth = self._truth(inputs)
        parts = self._losses(params, inputs, truth, inputs["keys"])
        means = {name: part.total.sum() / jnp.maximum(part.samples.sum(), 1) for name, part in parts.items()}
        counts = {
            "objects": truth.there.sum(),
            "objects_left_out": (inputs["box_valid"] & ~truth.there).sum(),
            "objects_without_room": inputs["box_overflow"].sum(),
        }
        metrics = {f"{name}_loss": mean for name, mean in means.items()}
        loss: jax.Array = jnp.stack(list(means.values())).sum()
        return loss, (extra, metrics | {name: x.astype(jnp.float32) for name, x in counts.items()})

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """The losses of every image separately; samples depend on its index among the held-out images."""
        keys = _keys(jax.random.key(EVALUATION), batch["index"])
        parts = self._losses(params, batch, self._truth(batch), keys)
        each = {name: part.total / jnp.maximum(part.samples, 1) for name, part in parts.items()}
        sums = {f"{name}_loss": (x * batch["weight"]).sum() for name, x in each.items()}
        return {"loss": jnp.stack(list(sums.values())).sum(), **sums, "weight": batch["weight"].sum()}

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """`detections`; the true objects are on the host, where there is room for all of them: see
        `scaling.tasks.objects`.
        """
        return self.detections(params, extra, batch["image"])

    def predictions(self, rows: Mapping[str, np.ndarray]) -> Detected:
        return detected(rows, self.task.classes, self.rules)

    @property
    def rules(self) -> Rules:
        return RULES[self.task.rules]

    def summary(self, predictions: Detected, source: str, images: int) -> str:
        return f"detection on {source}, {images:,} images to train on; rules {self.task.rules}\n{predictions}"

    def detections(self, params: Any, extra: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        """The objects in unnormalised images [B, h, w, C]; see `scaling.tasks.base.Task`."""
        maps = self._maps(params, images)
        found: Found = self._c.detector.found(params["head"], self._c, maps)
        finite = jnp.stack([jnp.isfinite(x).all((1, 2, 3)) for x in maps]).all(0)
        return found._replace(scores=jnp.where(finite[:, None], found.scores, jnp.nan))._asdict()

    def _maps(self, params: Any, images: jax.Array) -> list[jax.Array]:
        maps: Any = self._model.apply({"params": params}, normalise(images, self._of.mean, self._of.std))
        return maps

    def _losses(self, params: Any, batch: Batch, truth: Truth, keys: jax.Array) -> Losses:
        return self._c.detector.losses(params["head"], self._c, self._maps(params, batch["image"]), truth, keys)

    def _truth(self, batch: Batch) -> Truth:
        """The objects to learn from: those with an area, in either orientation."""
        boxes = from_quadrilaterals(batch["boxes"])
        large = (boxes[..., 3] > 0) & (boxes[..., 3] >= self.task.least_side)
        return Truth(boxes, batch["box_class"], batch["box_valid"] & large & jnp.isfinite(boxes).all(-1))


def _keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Keys for images with these indices, one for each stage that samples, as key data [B, 2, ...]."""

    def of_image(number: jax.Array) -> jax.Array:
        return jax.random.key_data(jax.random.split(jax.random.fold_in(key, number), _STAGES))

    return jax.vmap(of_image)(numbers)
