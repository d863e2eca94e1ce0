"""Patch embedding of every channel by itself, then attention over the channels of a patch: Panopticon (Waldmann et al.,
2503.10845).

All channels share one kernel. An encoding of each channel is added (sin-cos of its wavelength; for radar, learned rows
for polarisations and orbit), one learned query gathers the channels of each patch in 16 heads, and a last matrix
brings the result to the width of the encoder. Shapes as in torchgeo's implementation.
"""

from scaling.models import parameters
from scaling.models.stems.stem import Stem, Use
from scaling.models.vit import ViTConfig

WIDTH, HEADS = 2304, 16


def panopticon(c: ViTConfig) -> Stem:
    """Keys and values have no bias, and the query no projection."""
    width = {"channel/embed": WIDTH}
    heads = {"channel/heads": HEADS, "channel/head_dim": WIDTH // HEADS}
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
