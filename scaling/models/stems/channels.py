"""Patch embedding of every channel separately, then attention over the channels of a patch: Panopticon (Waldmann et
al., 2503.10845).

All channels share one kernel. An encoding of each channel is added (sin-cos of its wavelength; for radar, learned rows
for polarisations and orbit), one learned query gathers the channels of each patch in 16 heads, and a last matrix maps
the result to the width of the encoder. Shapes as in torchgeo's implementation. Letters: C channels, P pixels of a
patch, E the width of the channels, N and H their heads, D the width of the encoder.
"""

from typing import Any

import jax
import jax.numpy as jnp

from scaling.models import parameters
from scaling.models.config import ViTConfig
from scaling.models.stems.stem import Stem, Use

WIDTH, HEADS = 2304, 16


def attention_over_channels(c: ViTConfig) -> Stem:
    """The stem of a converted encoder, in which the encoding of each channel is part of its bias."""
    stem = panopticon(c, c.channel_width, c.channel_heads)
    patch = stem.table["patch"]
    bias = ({"bands": c.bands, "channel/embed": c.channel_width}, parameters.zeros)
    table = {group: row for group, row in stem.table.items() if group != "radar"}
    return Stem(table | {"patch": {**patch, "bias": bias}}, stem.uses)


def embed(p: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    """Images to the embeddings of their patches. p: of `attention_over_channels`; [B, h, w, C] -> [B, T, D]."""
    p = jax.tree.map(lambda x: x.astype(images.dtype), p)
    batch, (rows, columns), side = len(images), c.grid, c.patch_size
    x = images.reshape(batch, rows, side, columns, side, c.bands).transpose(0, 1, 3, 5, 2, 4)
    x = x.reshape(batch, c.patches, c.bands, side**2)  # [B, T, C, P]
    x = jnp.einsum("BTCP,PE->BTCE", x, p["patch"]["kernel"]) + p["patch"]["bias"]
    key_value = jnp.einsum("BTCE,ESNH->SBTCNH", x, p["key_value"]["kernel"])
    query = p["query"]["token"] * p["query"]["token"].shape[-1] ** -0.5
    logits = jnp.einsum("NH,BTCNH->BTNC", query, key_value[0])
    mixed = jnp.einsum("BTNC,BTCNH->BTNH", jax.nn.softmax(logits), key_value[1])
    return jnp.einsum("BTNH,NHD->BTD", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def panopticon(c: ViTConfig, channel_width: int = WIDTH, channel_heads: int = HEADS) -> Stem:
    """The stem as published: keys and values have no bias, and the query has no projection."""
    width = {"channel/embed": channel_width}
    heads = {"channel/heads": channel_heads, "channel/head_dim": channel_width // channel_heads}
    patch, embed = {"patch": c.patch_size**2}, {"embed": c.width}
    table: parameters.Table = {
        "patch": {
            "kernel": ({**patch, **width}, parameters.xavier_uniform),
            "bias": (width, parameters.zeros),
        },
        # two rows (V and H; ascending and descending), a third of the width each for transmit, receive and orbit
        "radar": {"embedding": ({"channel/tokens": 2, **width}, parameters.zeros)},
        "query": {"token": (heads, parameters.normal(1.0))},
        "key_value": {"kernel": ({**width, "channel/qkv": 2, **heads}, parameters.xavier_uniform)},
        "out": {
            "kernel": ({**heads, **embed}, parameters.xavier_uniform),
            "bias": (embed, parameters.zeros),
        },
    }
    channels = c.bands * c.patches
    return Stem(table, {"patch": Use(channels), "key_value": Use(channels, queries=1), "out": Use(c.patches)})
