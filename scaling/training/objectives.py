"""What a training step minimises: one class for each kind of model.

An objective knows a model's parameters and what its loss is made of. It knows nothing of optimizers, meshes or files.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from scaling.data.pipeline import normalise
from scaling.models.classifier import Classifier, ClassifierConfig, layers_below_head
from scaling.models.mae import MAE, MAEConfig, mae_inputs, mask_noise
from scaling.models.parameters import abstract_params, init_params
from scaling.models.vit import ViTConfig, image_input
from scaling.training.config import StepConfig
from scaling.training.parametrization import initial

Batch = dict[str, jax.Array]
EVALUATION = 2**31 - 1  # the "step" whose random numbers evaluation uses; no training step reaches it


class Objective(Protocol):
    """A model and its loss.

    Attributes:
      keys: what it takes of a batch.
      names: of the axes of the parameters; see `scaling.models.parameters.abstract_params`.
      below_head: how many layers below the head each parameter lies, for `optimizer.layer_decay`; None without a head.
      reconstruct: (params, batch) -> what is drawn of held-out images; None where there is nothing to see.
    """

    keys: tuple[str, ...]
    names: Any
    below_head: Any
    reconstruct: Callable[[Any, Batch], dict[str, jax.Array]] | None

    def init(self, seed: Any) -> Any:
        """The parameters before the first step."""

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """A global batch with all that the step draws at random; every array has the axis `batch` first."""

    def losses(self, params: Any, inputs: Batch) -> jax.Array:
        """Loss of every image, float32 [B]."""

    def evaluate(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Sums over the held-out images of a batch, each image counted with its `weight`, and the sum of those."""


class Reconstruction:
    """Masked autoencoding: the pixels of the patches that the encoder did not see."""

    keys = ("image",)
    below_head = None

    def __init__(self, c: MAEConfig, step: StepConfig):
        self._c, self._step = c, step
        self._model = MAE(c, jnp.dtype(step.dtype))
        _, self.names = abstract_params(self._model, *mae_inputs(c))

    def init(self, seed: Any) -> Any:
        params = init_params(self._model, seed, *mae_inputs(self._c))
        return initial(params, self.names, self._c, self._step.parametrization)

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        images, key = batch["image"], jax.random.fold_in(jax.random.key(seed), step)
        return {"image": images, "noise": mask_noise(key, jnp.arange(images.shape[0]), self._c.patches)}

    def losses(self, params: Any, inputs: Batch) -> jax.Array:
        return self._apply(params, inputs["image"], inputs["noise"])["loss"]

    def evaluate(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """The loss under masks that depend on the image's position alone, not on the seed."""
        loss = self._apply(params, batch["image"], self._held_out_noise(batch))["loss"]
        return {"loss": (loss * batch["weight"]).sum(), "weight": batch["weight"].sum()}

    def reconstruct(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Predictions for held-out images: see `MAE.__call__`, plus the normalised images."""
        result = self._apply(params, batch["image"], self._held_out_noise(batch))
        images = normalise(batch["image"], self._step.mean, self._step.std)
        return {"images": images, "prediction": result["prediction"], "masked": result["masked"]}

    def _held_out_noise(self, batch: Batch) -> jax.Array:
        return mask_noise(jax.random.fold_in(jax.random.key(0), EVALUATION), batch["index"], self._c.patches)

    def _apply(self, params: Any, images: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        images = normalise(images, self._step.mean, self._step.std)
        result: Any = self._model.apply({"params": params}, images, noise)
        return result


class Classification:
    """Telling classes, or any number of labels, apart."""

    keys = ("image", "label")
    reconstruct = None

    def __init__(self, c: ClassifierConfig, step: StepConfig):
        self._c, self._step = c, step
        self._model = Classifier(c, jnp.dtype(step.dtype))
        _, self.names = abstract_params(self._model, image_input(c))
        self.below_head = layers_below_head(self.names, c)

    def init(self, seed: Any) -> Any:
        return init_params(self._model, seed, image_input(self._c))

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        """Images and targets [B, K], mixed where asked (Zhang et al., 1710.09412): each image with the one as far from
        the end of the batch as it is from the start, in a share of its own.
        """
        c, images, targets = self._c, batch["image"], self._targets(batch["label"])
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

    def losses(self, params: Any, inputs: Batch) -> jax.Array:
        return self._losses(self.logits(params, inputs["image"]), inputs["target"])

    def evaluate(self, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """The loss without smoothing and mixing and, of one class per image, the share that is right."""
        logits, weight = self.logits(params, batch["image"]), batch["weight"]
        sums = {"loss": self._losses(logits, self._targets(batch["label"])), "weight": jnp.ones_like(weight)}
        if not self._c.multi_label:
            sums["accuracy"] = (logits.argmax(1) == batch["label"]).astype(jnp.float32)
        return {name: (x * weight).sum() for name, x in sums.items()}

    def logits(self, params: Any, images: jax.Array) -> jax.Array:
        """Images as they are stored -> float32 [B, K]."""
        result: Any = self._model.apply({"params": params}, normalise(images, self._step.mean, self._step.std))
        return result

    def _targets(self, labels: jax.Array) -> jax.Array:
        return labels.astype(jnp.float32) if self._c.multi_label else jax.nn.one_hot(labels, self._c.classes)

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        if self._c.multi_label:
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(1)
        return optax.softmax_cross_entropy(logits, targets)


def make_objective(step: StepConfig) -> Reconstruction | Classification:
    """The objective of a model, by its configuration."""
    kinds: dict[type[ViTConfig], Any] = {MAEConfig: Reconstruction, ClassifierConfig: Classification}
    return kinds[type(step.model)](step.model, step)
