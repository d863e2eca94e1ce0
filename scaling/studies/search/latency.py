"""Latencies of encoders on this device: a table of timed blocks by size, interpolated between its entries."""

import dataclasses
import functools
import itertools
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import RegularGridInterpolator

from scaling.core.rows import Row, provenance
from scaling.models.config import AXIS_FIELDS, ViTConfig
from scaling.models.vit import POOLS, ViT, abstract_vit, stem
from scaling.studies.search.space import Candidate, Space, Widths
from scaling.training.throughput import timed

STEM, BLOCK = "stem_seconds", "block_seconds"
_REPEATS = 10


def computer() -> dict[str, Any]:
    """The hardware and software that latencies refer to: accelerator, processor, usable cores, and library versions."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"(?m)^model name\s*: (.*)$", info.read_text()) if info.exists() else []
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count()
    return {**provenance(), "processor": names[0] if names else platform.processor(), "cores": cores}


def seconds(c: ViTConfig, batch: int) -> tuple[float, float]:
    """Seconds that an encoder of these sizes takes for a batch: its stem alone, and the whole; each the fastest of ten
    calls.
    """
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.02 * random.normal(size=x.shape), x.dtype), abstract_vit(c)[0])
    images = jnp.asarray(random.normal(size=(batch, *c.image_shape, c.bands)), jnp.float32)
    calls = (functools.partial(part, params, images, c) for part in (_embed, _encode))
    first, whole = (timed(lambda call=call: jax.block_until_ready(call()), _REPEATS) for call in calls)  # type: ignore[misc]
    return first, whole


@functools.partial(jax.jit, static_argnums=2)
def _embed(p: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    return stem(p, images, c)


@functools.partial(jax.jit, static_argnums=2)
def _encode(p: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    return POOLS["mean"](ViT(c).apply({"params": p}, images), c)  # type: ignore[arg-type]


def table_widths(space: Space) -> list[Widths]:
    """All combinations of the smallest, middle and full size of every axis."""
    picked = {axis: _picked(shares) for axis, shares in space.shares.items()}
    return [
        Widths(tuple((axis, s) for axis, s in zip(picked, shares, strict=True) if s < 1))
        for shares in itertools.product(*picked.values())
    ]


def _picked(shares: Sequence[float]) -> list[float]:
    return [shares[i] for i in sorted({0, len(shares) // 2, len(shares) - 1})]


@dataclasses.dataclass(frozen=True)
class BlockTime:
    """One entry of the table, a job of `scaling.studies.grid`; `template` has the fields that its rows share."""

    name: str
    config: ViTConfig
    batch: int
    template: Row

    @property
    def cost(self) -> float:
        return 0.05 * self.template.compute  # roughly, relative to a pass over all images

    def run(self) -> list[Row]:
        first, whole = seconds(self.config, self.batch)
        block = max(whole - first, 0.0) / self.config.depth
        return [
            dataclasses.replace(self.template, metric=metric, value=value)
            for metric, value in ((STEM, first), (BLOCK, block))
        ]


class LatencyTable:
    """Seconds of any candidate: its stem plus its blocks, interpolated linearly in each size between entries of the
    table.

    Args:
      space: space of the candidates.
      entries: metric -> widths -> seconds, for all `table_widths`.
    """

    def __init__(self, space: Space, entries: Mapping[str, Mapping[str, float]]):
        self._space = space
        self._axes = [axis for axis, shares in space.shares.items() if len(_picked(shares)) > 1]
        points = [[space.size(axis, s) for s in _picked(space.shares[axis])] for axis in self._axes]
        self._of = {}
        for metric, by_widths in entries.items():
            values = np.array([by_widths[str(widths)] for widths in table_widths(space)])
            grid = values.reshape([len(p) for p in points])
            self._of[metric] = RegularGridInterpolator(points, grid) if points else lambda _, v=values: v

    def __call__(self, candidate: Candidate) -> float:
        c = self._space.config(candidate)
        at = [[getattr(c, AXIS_FIELDS[axis]) for axis in self._axes]]
        first, block = (float(self._of[metric](at)[0]) for metric in (STEM, BLOCK))
        return first + len(candidate.blocks) * block
