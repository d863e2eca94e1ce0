"""A row of measurements to make others from, and the outcomes of a row by numpy alone."""

import base64

import numpy as np

from scaling.core.rows import Row

ROW = Row(
    study="width", model="", objective="mae", params=0, flops=0, compute=1.0, compute_published=1.0, width_ratio=1.0,
    depth_ratio=1.0, mode="", ordering="", recovery="", dataset="scenes", split="test", probe="", metric="", value=None,
    device="1 x cpu", versions="jax-0.10.2", config_hash="abc",
)  # fmt: skip


def decoded(text):
    """Bits or classes of one image each."""
    count, _, written = text.partition(":")
    raw = np.frombuffer(base64.b64decode(written), np.uint8)
    return raw if count.endswith("u1") else np.unpackbits(raw)[: int(count)]
