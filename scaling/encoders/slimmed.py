"""A narrower encoder from a trained one, without training: ordered, cut, repaired.

    slim(encoder, 0.25)                                                    the published slimming
    slim(encoder, 0.25, ordering="svd", recovery="ridge", images=images)   the same compute, closer to the full encoder

The logits keep the scale 1/sqrt(head_dim) of the full encoder for orderings whose kept dimensions approximate all of
them (`energy`, `svd`). For `first`, `last` and `random` the scale follows the kept head size, as published.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.calibration import Calibration, with_layers
from scaling.encoders.encoder import Encoder
from scaling.encoders.repairing import Blocks
from scaling.models.activations import MOMENT_NAMES
from scaling.models.config import ViTConfig
from scaling.models.vit import abstract_vit, cuttable, pooled
from scaling.slimming.cutting import axis_sizes, cut
from scaling.slimming.depth import check_blocks
from scaling.slimming.orderings import ORDERINGS, reorder
from scaling.slimming.recovery import OUTPUTS, RECOVERIES, add_means, mean_output
from scaling.slimming.rotation import weight_moments
from scaling.slimming.widths import mode_axes, width_plan

_FAITHFUL = ("energy", "svd")  # orderings after which the kept part of the logits approximates all of it
_NEED_IMAGES = ("energy", "mean", "ridge")

Features = Callable[[str], np.ndarray]  # a pool -> [N, D]


def uses_images(ordering: str, recovery: str) -> bool:
    """Whether slimming benefits from calibration images; `svd` works without."""
    return not {ordering, recovery}.isdisjoint((*_NEED_IMAGES, "svd"))


def slim(
    encoder: Encoder,
    width_ratio: float | Mapping[str, float],
    mode: str = "inner",
    ordering: str = "first",
    recovery: str = "none",
    images: np.ndarray | None = None,
    seed: int = 0,
    blocks: Sequence[int] | None = None,
) -> Encoder:
    """A narrower encoder; see `Slimmer`, which shares the work between several widths.

    Args:
      encoder: the full encoder.
      width_ratio: s in (0, 1] for every axis of the mode, or axis -> s.
      mode: axes that are cut, see `scaling.slimming.widths.mode_axes`; not used with a mapping.
      ordering: order in which units are kept, see `scaling.slimming.orderings`.
      recovery: repair after the cut, see `scaling.slimming.recovery`.
      images: unlabelled and normalised [N, h, w, C]; `energy`, `mean` and `ridge` need them.
      seed: seed of the ordering `random`.
      blocks: indices of the blocks kept, from 0; None for all. `ridge` also lets them replace the missing ones.

    Raises:
      UserError: a name, width or images that do not fit the encoder, or images that are missing.
    """
    return Slimmer(encoder, images)(width_ratio, mode, ordering, recovery, seed, blocks)


class Slimmer:
    """Slims one encoder to many widths; everything independent of the width is computed once.

    Args:
      encoder: the full encoder.
      images: unlabelled and normalised [N, h, w, C], or None if nothing needs them.

    Raises:
      UserError: images that the encoder does not take.
    """

    def __init__(self, encoder: Encoder, images: np.ndarray | None = None):
        self.encoder = encoder
        self._calibration = None if images is None else Calibration(encoder, images)
        self._ordered = functools.lru_cache(maxsize=1)(
            self._reorder
        )  # widths of one ordering are requested consecutively

    def __call__(
        self,
        width_ratio: float | Mapping[str, float],
        mode: str = "inner",
        ordering: str = "first",
        recovery: str = "none",
        seed: int = 0,
        blocks: Sequence[int] | None = None,
    ) -> Encoder:
        """The encoder of one width; for the arguments see `slim`. An empty mapping keeps the full width."""
        axes = tuple(width_ratio) if isinstance(width_ratio, Mapping) else mode_axes(mode)
        mode_axes("+".join(axes) or mode)
        self._check(ordering, recovery, axes)
        if blocks is not None:
            self._check_blocks(blocks, recovery, axes)
        ratios = dict(width_ratio) if isinstance(width_ratio, Mapping) else dict.fromkeys(axes, width_ratio)
        small, config = self._cut(ratios, ordering, recovery, seed)
        params = {group: small[group] for group in small if group not in _BESIDE}
        if blocks is not None:
            params = cut(params, abstract_vit(config)[1], {"layers": tuple(blocks)})
            config = config.with_blocks(blocks)
        if recovery == "ridge" and self._calibration is not None:
            params = self._calibration.repair(
                params, config, small["channels"]["index"], None if blocks is None else tuple(blocks)
            )
        return self._encoder_of(params, config)

    def _cut(
        self, ratios: Mapping[str, float], ordering: str, recovery: str, seed: int = 0
    ) -> tuple[dict[str, Any], ViTConfig]:
        """The parameter tree of one width before `ridge`, with `channels` beside the parameters if it was reordered."""
        if (ordering, recovery) == ("first", "none"):
            tree, c = cuttable(self.encoder.params, self.encoder.config, ratios)
        else:
            tree, c = self._ordered(ordering, tuple(ratios), seed)
        names = _names(tree, c)
        plan = width_plan(axis_sizes(tree, names), ratios)
        small, config = cut(tree, names, plan), c.resized(plan)
        if ordering in _FAITHFUL:
            config = dataclasses.replace(config, attention_scale=c.scale)
        if recovery == "mean":
            small["blocks"] = add_means(small["blocks"], _missing_means(tree, small, plan))
        return small, config

    def _encoder_of(self, params: Any, config: ViTConfig) -> Encoder:
        params, whole = jax.tree.map(jnp.asarray, params), self.encoder.identity
        return dataclasses.replace(self.encoder, config=config, params=params, whole=whole)

    def repaired(
        self, ratios: Mapping[str, float], ordering: str, sets: Sequence[Blocks], images: np.ndarray
    ) -> Iterator[tuple[Blocks, Callable[[], Encoder], Features]]:
        """The encoders of one width and several sets of blocks, repaired by `ridge`; common beginnings are computed
        once.

        Args:
          ratios: axis -> s, without `layers`; empty for the full width.
          ordering: see `slim`.
          sets: sets of blocks to keep.
          images: normalised [N, h, w, C], which are not fitted to.

        Yields:
          The blocks, a function that makes the encoder, and a function from a pool to its features of the images, [N,
          D].
        """
        if self._calibration is None:
            raise UserError("'ridge' needs calibration images, a few hundred without labels")
        self._check(ordering, "ridge", tuple(ratios))
        small, config = self._cut(ratios, ordering, "ridge")
        params = {group: small[group] for group in small if group not in _BESIDE}
        for blocks, layers, tokens in self._calibration.repaired(
            params, config, small["channels"]["index"], sets, images
        ):
            c = config.with_blocks(blocks)
            make = functools.partial(self._encoder_of, with_layers(params, layers), c)
            yield blocks, make, functools.partial(_features, params, c, tokens)

    def channels(self, ratios: Mapping[str, float], ordering: str) -> np.ndarray:
        """Indices of the whole encoder's channels that the features of one width have, in order."""
        index: np.ndarray = self._cut(ratios, ordering, "ridge")[0]["channels"]["index"]
        return index

    def _check_blocks(self, blocks: Sequence[int], recovery: str, axes: tuple[str, ...]) -> None:
        check_blocks(blocks, self.encoder.config.depth)
        if "layers" in axes or recovery == "mean":
            raise UserError(
                f"blocks={list(blocks)}: needs recovery none or ridge, and layers must not be among the axes that are "
                "cut"
            )

    def _check(self, ordering: str, recovery: str, axes: tuple[str, ...]) -> None:
        for kind, name, known in (("ordering", ordering, ORDERINGS), ("recovery", recovery, RECOVERIES)):
            if name not in known:
                raise UserError(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")
        if axes == ("layers",) and (ordering, recovery) != ("first", "none"):
            raise UserError(
                f"ordering={ordering}, recovery={recovery}: a cut of layers keeps the first ones unchanged; leave both "
                "at first and none"
            )
        if "layers" in axes and recovery == "mean":
            raise UserError(
                "recovery=mean: works only for cuts in width; choose none or ridge, or cut the layers first"
            )
        if self.encoder.config.relative and "head_dim" in axes and ordering != "first":
            raise UserError(f"ordering={ordering}: relative positions have one order for all heads; choose first")
        needy = [name for name in (ordering, recovery) if name in _NEED_IMAGES]
        if needy and self._calibration is None:
            raise UserError(f"{needy[0]!r} needs calibration images, a few hundred without labels")

    def _reorder(self, ordering: str, axes: tuple[str, ...], seed: int) -> tuple[Any, ViTConfig]:
        """The full encoder in another order, in numpy, with the known statistics of its activations."""
        params, c = cuttable(self.encoder.params, self.encoder.config, axes)
        tree = jax.tree.map(np.asarray, params)
        if self._calibration is not None:
            tree["moments"] = self._calibration.moments
        elif ordering == "svd":
            tree["moments"] = weight_moments(tree["blocks"])
        tree["channels"] = {"index": np.arange(c.width)}
        return reorder(tree, _names(tree, c), ordering, axes, seed), c


def _features(params: Any, c: ViTConfig, tokens: Sequence[jax.Array], pool: str) -> np.ndarray:
    c = dataclasses.replace(c, depth=1, branches=1, heads=1, head_dim=1, mlp=1, global_blocks=())  # one program for all
    return np.concatenate([np.asarray(pooled(params, x, c, pool), np.float32) for x in tokens])


# Trees that pass an ordering and a cut along with the parameters.
_BESIDE = {"moments": MOMENT_NAMES, "channels": {"index": ("embed",)}}


def _names(tree: Any, c: ViTConfig) -> Any:
    return abstract_vit(c)[1] | {group: names for group, names in _BESIDE.items() if group in tree}


def _missing_means(tree: Any, small: Any, plan: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The mean outputs that the cut removed from every sublayer, in the kept channels."""
    channels = plan.get("embed")
    return {group: mean_output(tree, group)[:, :channels] - mean_output(small, group) for group in OUTPUTS}
