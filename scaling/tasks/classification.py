"""Classification, with one class or any number of labels per image: an encoder and a linear head trained on
labelled images.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling.compute.counting import Tokens, whole_image
from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.data.arrays import normalise
from scaling.data.sources.base import Info
from scaling.evaluation.scores import Predictions
from scaling.evaluation.summary import summary
from scaling.models.classifier import Classifier, ClassifierConfig, abstract_classifier, init_head, layers_below_head
from scaling.models.config import ViTConfig
from scaling.models.parameters import init_params
from scaling.models.vit import image_input
from scaling.objectives.base import Batch, Inputs, task


@task
@dataclasses.dataclass(frozen=True)
class Labelling:
    """The head, and the targets it is trained on.

    Attributes:
      classes: number of classes, or of labels; follows from the data and is not set.
      multi_label: whether an image can have several labels, instead of one class; follows from the data.
      pool: cls, or mean over the patches.
      label_smoothing: fraction of the target that is spread evenly over all classes.
      mixup: alpha of the Beta distribution of the proportions in which pairs of images are mixed (Zhang et al.,
        1710.09412); 0 for none.
    """

    takes: ClassVar[tuple[str, ...]] = ("label",)
    of_data: ClassVar[tuple[str, ...]] = ("classes", "multi_label")
    distillations: ClassVar[tuple[str, ...]] = ("logits",)

    name: str = "classification"
    classes: int = 2
    multi_label: bool = False
    pool: str = "mean"
    label_smoothing: float = 0.0
    mixup: float = 0.0

    def with_data(self, info: Info) -> Self:
        return dataclasses.replace(self, classes=len(info.classes), multi_label=info.multi_label)

    def with_encoder(self, model: ViTConfig) -> ClassifierConfig:
        """Encoder and head together."""
        return copied(ClassifierConfig, self, model)

    def check(self, model: ViTConfig) -> None:
        self.with_encoder(model).check()
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"task.label_smoothing={self.label_smoothing}: must be at least 0 and below 1")
        if self.mixup < 0:
            raise UserError(f"task.mixup={self.mixup}: must not be negative; 0 for none")

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        return abstract_classifier(self.with_encoder(model))

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        return whole_image(model)

    def scaled(self, model: ViTConfig, base: "Labelling", base_model: ViTConfig, deep: bool) -> "Labelling":
        return self

    def resized(self, sizes: Mapping[str, int]) -> Self:
        return self

    def tokens_of_cut(self, model: ViTConfig) -> Tokens:
        return self.tokens(model)

    def make(self, model: ViTConfig, inputs: Inputs) -> "Classification":
        return Classification(self, model, inputs)


class Classification:
    """The objective; see `scaling.tasks.base.Task` and `scaling.objectives.cuttable.Cuttable`."""

    extra_names: Mapping[str, Any] = {}
    divisible = True
    picture = draw = coordinates = None
    pixel_logits = pixel_counts = detections = None

    def __init__(self, task: Labelling, model: ViTConfig, inputs: Inputs):
        self.task, self._c, self._of = task, task.with_encoder(model), inputs
        self._model = Classifier(self._c, jnp.dtype(inputs.dtype))
        self.names = abstract_classifier(self._c)[1]
        self.below_head = layers_below_head(self.names, self._c)

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        labels = (self._c.classes,) if self._c.multi_label else ()
        label = jax.ShapeDtypeStruct((size, *labels), jnp.int32)
        return {"image": image_input(self._c, size, jnp.uint8), "label": label}

    def init(self, seed: Any) -> Any:
        return init_params(self._model, seed, image_input(self._c))

    def init_head(self, seed: int) -> Any:
        """The head alone, before the first step on an encoder that is trained already."""
        return init_head(self._c, seed)

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {}

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Images and targets [B, K], mixed if configured (Zhang et al., 1710.09412): each image with its mirror in the
        order of the batch, with a share of its own.
        """
        c, images, targets = self.task, batch["image"], self._targets(batch["label"])
        targets = targets * (1 - c.label_smoothing) + c.label_smoothing * (0.5 if c.multi_label else 1 / c.classes)
        if not c.mixup:
            return {"image": images, "target": targets}
        key = jax.random.fold_in(jax.random.key(seed), step)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(images.shape[0]))
        share = jax.vmap(lambda k: jax.random.beta(k, c.mixup, c.mixup))(keys)
        images = images.astype(jnp.float32)

        def mix(x: jax.Array) -> jax.Array:
            weight = share.reshape(-1, *[1] * (x.ndim - 1))
            return weight * x + (1 - weight) * x[::-1]

        return {"image": mix(images), "target": mix(targets)}

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        found, _ = self.told(params, inputs)
        return found["loss"].mean(), (extra, {})

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """The loss without smoothing and mixing and, for one class per image, the accuracy."""
        logits, weight = self.logits(params, batch["image"]), batch["weight"]
        sums = {"loss": self._losses(logits, self._targets(batch["label"])), "weight": jnp.ones_like(weight)}
        if not self._c.multi_label:
            sums["accuracy"] = (logits.argmax(1) == batch["label"]).astype(jnp.float32)
        return {name: (x * weight).sum() for name, x in sums.items()}

    def shared(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[dict[str, Any], Batch]:
        return extra, inputs

    def held_out(self, extra: dict[str, Any], batch: Batch) -> Batch:
        return {"image": batch["image"], "target": self._targets(batch["label"])}

    def told(self, params: Any, inputs: Batch) -> tuple[Batch, Batch]:
        logits = self.logits(params, inputs["image"])
        return {"loss": self._losses(logits, inputs["target"])}, {"logits": logits}

    def apart(self, what: str, found: jax.Array, wanted: jax.Array) -> jax.Array:
        """Kullback-Leibler divergence from the wider network's probabilities: its gradient is that of the cross-entropy
        with soft targets (US-Nets, 1903.05134). With several labels per image, the mean over the labels.
        """
        soft = jax.nn.sigmoid(wanted) if self._c.multi_label else jax.nn.softmax(wanted)
        return self._losses(found, soft) - self._losses(wanted, soft)

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        return {"logits": self.logits(params, batch["image"]), "label": batch["label"]}

    def predictions(self, rows: Mapping[str, np.ndarray]) -> Predictions:
        return Predictions.of_logits(rows["logits"], rows["label"])

    def summary(self, predictions: Predictions, source: str, images: int) -> str:
        return summary("fine-tuning,", source, images, {"fine-tuned": predictions})

    def logits(self, params: Any, images: jax.Array) -> jax.Array:
        """Unnormalised images -> float32 [B, K]."""
        result: Any = self._model.apply({"params": params}, normalise(images, self._of.mean, self._of.std))
        return result

    def _targets(self, labels: jax.Array) -> jax.Array:
        return labels.astype(jnp.float32) if self._c.multi_label else jax.nn.one_hot(labels, self._c.classes)

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        if self._c.multi_label:
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(1)
        return optax.softmax_cross_entropy(logits, targets)
