"""Masked autoencoding: the pixels of the patches that the encoder did not see (He et al., 2111.06377)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from scaling import axes
from scaling.compute.counting import Tokens
from scaling.core.config import copied
from scaling.data.arrays import normalise
from scaling.models.config import ViTConfig
from scaling.models.mae import MAE, MAEConfig, Masking, abstract_mae, coordinate_sizes, mae_inputs, mask_noise
from scaling.models.ops import wide
from scaling.models.parameters import init_params
from scaling.models.vit import image_input
from scaling.objectives.base import EVALUATION, Batch, Inputs, objective
from scaling.objectives.reconstructions import reconstruction_panel


@objective
@dataclasses.dataclass(frozen=True)
class MaskedAutoencoding(Masking):
    """The configuration of the objective; see also `scaling.objectives.cuttable.CuttableConfig`."""

    distillations: ClassVar[tuple[str, ...]] = ("tokens", "outputs")

    name: str = "mae"

    @classmethod
    def of(cls, c: MAEConfig) -> "MaskedAutoencoding":
        """The objective of a masked autoencoder: all of its fields but the encoder's."""
        return copied(cls, c)

    def with_encoder(self, model: ViTConfig) -> MAEConfig:
        """Encoder and decoder together."""
        return copied(MAEConfig, self, model)

    def check(self, model: ViTConfig) -> None:
        self.with_encoder(model).check()

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        return abstract_mae(self.with_encoder(model))

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        """The encoder sees the visible patches and the decoder all; of the `whole` image, both see all."""
        c = self.with_encoder(model)
        visible, predicted = (c.patches, c.patches) if whole else (c.visible, c.patches - c.visible)
        encoded = c.tokens if whole else c.prefix + c.visible

        def decoded(p: axes.Parameter) -> int:
            joined = axes.spaces(p.names)
            if (c.decoder.network, "pixels") in joined:
                return predicted
            return encoded if ("", "residual") in joined else c.tokens

        return Tokens(visible, encoded, decoded)

    def scaled(
        self, model: ViTConfig, base: "MaskedAutoencoding", base_model: ViTConfig, deep: bool
    ) -> "MaskedAutoencoding":
        ours, small = self.with_encoder(model).decoder, base.with_encoder(base_model).decoder
        attention, residual = ours.scales_from(small, deep)
        return dataclasses.replace(self, decoder_attention_scale=attention, decoder_residual_scale=residual)

    def resized(self, sizes: Mapping[str, int]) -> "MaskedAutoencoding":
        decoder = {plain: size for axis, size in sizes.items() for network, plain in [axes.split(axis)] if network}
        if not decoder:
            return self
        d = self.with_encoder(ViTConfig()).decoder.resized(decoder)
        return dataclasses.replace(
            self,
            decoder_heads=d.heads,
            decoder_head_dim=d.head_dim,
            decoder_mlp=d.mlp,
            decoder_attention_scale=d.attention_scale,
        )

    def tokens_of_cut(self, model: ViTConfig) -> Tokens:
        return self.tokens(model)

    def make(self, model: ViTConfig, inputs: Inputs) -> "Reconstruction":
        return Reconstruction(self.with_encoder(model), inputs)


class Reconstruction:
    """The objective; see `scaling.objectives.base.Objective` and `scaling.objectives.cuttable.Cuttable`."""

    extra_names: Mapping[str, Any] = {}
    divisible = True
    below_head = None

    def __init__(self, c: MAEConfig, inputs: Inputs):
        self._c, self._of = c, inputs
        self._model = MAE(c, jnp.dtype(inputs.dtype))
        self.names = abstract_mae(c)[1]

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {"image": image_input(self._c, size, jnp.uint8)}

    def init(self, seed: Any) -> Any:
        return init_params(self._model, seed, *mae_inputs(self._c))

    def init_extra(self, params: Any) -> dict[str, Any]:
        return {}

    def inputs(self, seed: Any, step: jax.Array, batch: Batch) -> Batch:
        images, key = batch["image"], jax.random.fold_in(jax.random.key(seed), step)
        return {"image": images, "noise": mask_noise(key, jnp.arange(images.shape[0]), self._c.patches)}

    def loss(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[jax.Array, tuple[dict[str, Any], Batch]]:
        return self.told(params, inputs)[0]["loss"].mean(), (extra, {})

    def evaluate(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """Held-out loss; masks depend on the image's position alone, not on the seed."""
        loss = self.told(params, self.held_out(extra, batch))[0]["loss"]
        return {"loss": (loss * batch["weight"]).sum(), "weight": batch["weight"].sum()}

    def shared(self, params: Any, extra: dict[str, Any], inputs: Batch) -> tuple[dict[str, Any], Batch]:
        return extra, inputs

    def held_out(self, extra: dict[str, Any], batch: Batch) -> Batch:
        return {"image": batch["image"], "noise": self._held_out_noise(batch)}

    def told(self, params: Any, inputs: Batch) -> tuple[Batch, Batch]:
        found = self._apply(params, inputs["image"], inputs["noise"])
        return {"loss": found["loss"]}, {"tokens": found["tokens"], "outputs": found["prediction"]}

    def apart(self, what: str, found: jax.Array, wanted: jax.Array) -> jax.Array:
        """The mean squared error; for tokens, over the channels that are kept."""
        return jnp.square(wide(found) - wide(wanted[..., : found.shape[-1]])).mean((1, 2))

    def picture(self, params: Any, batch: Batch) -> Batch:
        """Predictions for held-out images: see `MAE.__call__`, plus the normalised images."""
        result = self._apply(params, batch["image"], self._held_out_noise(batch))
        images = normalise(batch["image"], self._of.mean, self._of.std)
        return {"images": images, "prediction": result["prediction"], "masked": result["masked"]}

    def coordinates(self, params: Any, batch: Batch) -> Batch:
        images = normalise(batch["image"], self._of.mean, self._of.std)
        noise = mask_noise(jax.random.key(0), jnp.arange(len(images)), self._c.patches)
        return coordinate_sizes(params, images, noise, self._c)

    def draw(self, path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
        reconstruction_panel(
            path, self._c, np.asarray(self._of.mean), np.asarray(self._of.std), **arrays, rgb=self._of.rgb
        )

    def _held_out_noise(self, batch: Batch) -> jax.Array:
        return mask_noise(jax.random.fold_in(jax.random.key(0), EVALUATION), batch["index"], self._c.patches)

    def _apply(self, params: Any, images: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        images = normalise(images, self._of.mean, self._of.std)
        result: Any = self._model.apply({"params": params}, images, noise)
        return result
