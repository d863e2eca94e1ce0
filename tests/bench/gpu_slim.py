"""The time of one call of slimmed encoders, beside the share of the operations that is left; see `tests.bench.gpu`."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.compute.counting import flops, whole_image
from scaling.models.config import ViTConfig
from scaling.models.parameters import init_params
from scaling.models.variants import encoder
from scaling.models.vit import POOLS, ViT, abstract_vit, image_input
from scaling.slimming.cutting import axis_sizes, cut
from scaling.slimming.widths import mode_plan

SEED = 0
TINY = {"width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64, "image_size": 32, "patch_size": 8}
WIDTHS, DEPTHS, BATCHES = (1.0, 0.5, 0.25, 0.1), (12, 6, 3), (1, 64)
CALLS = 10  # of a turn
NEEDED = 12  # seconds that one cut may take, with two programs to compile


def cuts(tiny: bool) -> list[tuple[float, int]]:
    """(width, depth) of the encoders: cut in one, then in both, in the order in which they are measured."""
    widths, depths = ((1.0, 0.5), (2, 1)) if tiny else (WIDTHS, DEPTHS)
    one = [*((s, depths[0]) for s in widths), *((1.0, depth) for depth in depths[1:])]
    return one + [(s, depth) for depth in depths[1:] for s in widths[1:]]


@dataclasses.dataclass(frozen=True)
class Cut:
    """An encoder cut in width (as published) and depth, and its operations on one image (`full`)."""

    config: ViTConfig
    params: Any
    operations: int

    def program(self, batch: int) -> Callable[[], Any]:
        """One call with a batch of images, from the arrays on the device to the features on it."""
        c, model = self.config, ViT(self.config, jnp.bfloat16)
        images = jnp.asarray(np.random.default_rng(SEED).standard_normal(image_input(c, batch).shape), jnp.float32)

        def features(params: Any, x: jax.Array) -> jax.Array:
            tokens: Any = model.apply({"params": params}, x)
            return POOLS["mean"](tokens, c).astype(jnp.float32)

        return functools.partial(jax.jit(features).lower(self.params, images).compile(), self.params, images)


def cut_encoder(full: ViTConfig, params: Any, width: float, depth: int) -> Cut:
    names = abstract_vit(full)[1]
    plan = mode_plan(axis_sizes(params, names), width) | {"layers": depth}
    small = full.resized(plan)
    shapes, small_names = abstract_vit(small)
    return Cut(small, cut(params, names, plan), flops(small_names, shapes, whole_image(small))["full"]["encoder"])


def rows(fields: dict[str, Any], repeats: int, tiny: bool, left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """One row an encoder and number of images; they take turns of ten calls. `left`: seconds of the budget."""
    c = dataclasses.replace(encoder("vit_b", **(TINY if tiny else {})), **fields)
    params = jax.jit(lambda: init_params(ViT(c), SEED, image_input(c)))()
    programs: dict[tuple[float, int, int], Callable[[], Any]] = {}
    small: dict[tuple[float, int], Cut] = {}
    for width, depth in cuts(tiny):
        if left() < (0 if tiny else NEEDED):
            print(f"s = {width:g} at depth {depth} and what follows: left out, {left():.0f} s are left of the budget")
            break
        small[width, depth] = cut_encoder(c, params, width, depth)
        for batch in (1, 2) if tiny else BATCHES:
            programs[width, depth, batch] = small[width, depth].program(batch)
    times = turns(programs, repeats)
    for (width, depth, batch), seconds in times.items():
        median, full = statistics.median(seconds), statistics.median(times[1.0, c.depth, batch])
        yield {
            "bench": "slim",
            "model": f"vit_b{c.patch_size}",
            "width_ratio": width,
            "depth": depth,
            "batch": batch,
            "seconds": median,
            "seconds_min": min(seconds),
            "images_per_second": batch / median,
            "relative_time": median / full,
            "relative_compute": small[width, depth].operations / small[1.0, c.depth].operations,
        }


def turns(programs: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[float]]:
    """Seconds of every call, each waited for; the first of a program is not counted."""
    times: dict[Any, list[float]] = {key: [] for key in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(repeats):
        for key, program in programs.items():
            for _ in range(CALLS):
                began = time.perf_counter()
                jax.block_until_ready(program())
                times[key].append(time.perf_counter() - began)
    return times
