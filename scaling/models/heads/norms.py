"""Normalisation of the channels of a map: by the statistics of the batch, or of groups of channels of each image."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from scaling.core.errors import UserError
from scaling.models.ops import wide

Statistics = dict[str, dict[str, jax.Array]]  # norm -> mean, variance [C]

NORMS = ("batch", "group")
EPS = 1e-5
MOMENTUM = 0.1  # weight of the newest batch in the running statistics


class Norms:
    """The norms of one pass through a network.

    A mean over the axis `batch` is a mean over the global batch, however it is split over devices: SyncBN in torch.

    Args:
      kind: one of `NORMS`.
      groups: number of groups of channels, for `group`.
      running: statistics by which `batch` normalises instead of those of the batch, by name; None in training.

    Attributes:
      seen: mean and unbiased variance of each norm over the batch, by name; empty unless `batch` is training.
    """

    def __init__(self, kind: str, groups: int, running: Mapping[str, Mapping[str, jax.Array]] | None = None):
        self._kind, self._groups, self._running = kind, groups, running
        self.seen: Statistics = {}

    def __call__(self, name: str, p: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
        """x: [B, h, w, C], its channels scaled and shifted by p; float32 inside."""
        y = wide(x)
        normalised = self._by_group(y) if self._kind == "group" else self._by_batch(name, y)
        return (normalised * p["scale"] + p["bias"]).astype(x.dtype)

    def _by_group(self, x: jax.Array) -> jax.Array:
        grouped = x.reshape(*x.shape[:3], self._groups, -1)
        mean = grouped.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(grouped - mean).mean((1, 2, 4), keepdims=True)
        return ((grouped - mean) * jax.lax.rsqrt(variance + EPS)).reshape(x.shape)

    def _by_batch(self, name: str, x: jax.Array) -> jax.Array:
        if self._running is not None:
            kept = self._running[name]
            return (x - kept["mean"]) * jax.lax.rsqrt(kept["variance"] + EPS)
        count = x.size // x.shape[-1]
        if count < 2:
            raise UserError(
                "task.norm=batch: the batch has only one value per channel; use more images, or task.norm=group"
            )
        mean = x.mean((0, 1, 2))
        variance = jnp.square(x - mean).mean((0, 1, 2))
        self.seen[name] = {"mean": mean, "variance": variance * count / (count - 1)}
        return (x - mean) * jax.lax.rsqrt(variance + EPS)


def updated(running: Statistics, seen: Statistics) -> Statistics:
    """The running statistics after a batch."""

    def step(old: jax.Array, new: jax.Array) -> jax.Array:
        return (1 - MOMENTUM) * old + MOMENTUM * jax.lax.stop_gradient(new)

    return jax.tree.map(step, running, seen)
