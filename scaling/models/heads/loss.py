"""The loss of logits of every class at every pixel."""

import jax
import jax.numpy as jnp
import optax

from scaling.models.heads.spatial import resize


def pixel_losses(logits: jax.Array, mask: jax.Array, ignore: int) -> jax.Array:
    """Cross-entropy of every pixel, 0 where it does not count; the logits are brought to the size of the mask.

    logits: [B, h, w, K]; mask: whole numbers [B, H, W] -> [B, H, W].
    """
    counts = mask != ignore
    labels = jnp.where(counts, mask, 0).astype(jnp.int32)
    losses = optax.softmax_cross_entropy_with_integer_labels(resize(logits, mask.shape[1:3]), labels)
    return jnp.where(counts, losses, 0)


def shares(mask: jax.Array, ignore: int) -> jax.Array:
    """The factor of the summed loss of each image that makes their mean that over all pixels of the batch that count,
    of the parts of the batch too; 0 pixels count as one. [B, H, W] -> [B].
    """
    counted = jnp.maximum((mask != ignore).sum(), 1)
    return jnp.full(mask.shape[0], mask.shape[0] / counted)
