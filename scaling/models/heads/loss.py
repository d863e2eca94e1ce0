"""The loss of logits of every class at every pixel."""

import jax
import jax.numpy as jnp
import optax

from scaling.models.heads.spatial import resize


def pixel_losses(logits: jax.Array, mask: jax.Array, ignore: int) -> jax.Array:
    """Cross-entropy of every pixel, 0 for ignored pixels; the logits are resized to the size of the mask.

    logits: [B, h, w, K]; mask: integers [B, H, W] -> [B, H, W].
    """
    counts = mask != ignore
    labels = jnp.where(counts, mask, 0).astype(jnp.int32)
    losses = optax.softmax_cross_entropy_with_integer_labels(resize(logits, mask.shape[1:3]), labels)
    return jnp.where(counts, losses, 0)


def shares(mask: jax.Array, ignore: int) -> jax.Array:
    """Factors for the summed loss of each image that turn the mean over images into the mean over all labelled
    pixels of the batch, also if it is divided into microbatches; 0 pixels count as one. [B, H, W] -> [B].
    """
    counted = jnp.maximum((mask != ignore).sum(), 1)
    return jnp.full(mask.shape[0], mask.shape[0] / counted)
