"""A narrower encoder out of a trained one, without training: cut, ordered, repaired.

    slim(encoder, 0.25)                                                    the published slimming
    slim(encoder, 0.25, ordering="svd", recovery="ridge", images=images)   the same compute, closer to the full encoder

The logits keep the scale 1/sqrt(head_dim) of the full encoder where the ordering makes the kept dimensions stand for
all of them (`energy`, `svd`). For `first`, `last` and `random` the scale follows the kept head size, as published.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.calibration import Calibration
from scaling.encoders.encoder import Encoder, cuttable
from scaling.models.activations import MOMENT_NAMES
from scaling.models.config import ViTConfig
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import axis_sizes, cut
from scaling.slimming.orderings import ORDERINGS, reorder
from scaling.slimming.recovery import OUTPUTS, RECOVERIES, add_means, mean_output
from scaling.slimming.rotation import weight_moments
from scaling.slimming.widths import mode_axes, width_plan

_FAITHFUL = ("energy", "svd")  # orderings after which the kept part of the logits approximates all of it
_NEED_IMAGES = ("energy", "mean", "ridge")


def uses_images(ordering: str, recovery: str) -> bool:
    """Whether slimming gains from calibration images; `svd` can do without."""
    return not {ordering, recovery}.isdisjoint((*_NEED_IMAGES, "svd"))


def slim(
    encoder: Encoder,
    width_ratio: float | Mapping[str, float],
    mode: str = "inner",
    ordering: str = "first",
    recovery: str = "none",
    images: np.ndarray | None = None,
    seed: int = 0,
) -> Encoder:
    """A narrower encoder; see `Slimmer`, which shares the work between several widths.

    Args:
      encoder: the full one.
      width_ratio: s in (0, 1] for every axis of the mode, or axis -> s.
      mode: what is cut, see `scaling.slimming.widths.mode_axes`; not used with a mapping.
      ordering: which units are kept, see `scaling.slimming.orderings`.
      recovery: what is repaired, see `scaling.slimming.recovery`.
      images: unlabelled and normalised [N, h, w, C]; `energy`, `mean` and `ridge` need them.
      seed: of the ordering `random`.

    Raises:
      UserError: a name, width or images that do not fit the encoder, or images that are missing.
    """
    return Slimmer(encoder, images)(width_ratio, mode, ordering, recovery, seed)


class Slimmer:
    """Slims one encoder to many widths; what does not depend on the width is computed once.

    Args:
      encoder: the full one.
      images: unlabelled and normalised [N, h, w, C], or None where nothing needs them.

    Raises:
      UserError: images that the encoder does not take.
    """

    def __init__(self, encoder: Encoder, images: np.ndarray | None = None):
        self.encoder = encoder
        self._calibration = None if images is None else Calibration(encoder, images)
        self._ordered = functools.lru_cache(maxsize=1)(self._reorder)  # the widths of one ordering follow each other

    def __call__(
        self,
        width_ratio: float | Mapping[str, float],
        mode: str = "inner",
        ordering: str = "first",
        recovery: str = "none",
        seed: int = 0,
    ) -> Encoder:
        """The encoder of one width; for the arguments see `slim`."""
        axes = mode_axes("+".join(width_ratio) if isinstance(width_ratio, Mapping) else mode)
        self._check(ordering, recovery, axes)
        ratios = dict(width_ratio) if isinstance(width_ratio, Mapping) else dict.fromkeys(axes, width_ratio)
        if (ordering, recovery) == ("first", "none"):
            tree, c = cuttable(self.encoder.params, self.encoder.config, ratios)
        else:
            tree, c = self._ordered(ordering, axes, seed)
        names = _names(tree, c)
        plan = width_plan(axis_sizes(tree, names), ratios)
        small, config = cut(tree, names, plan), c.resized(plan)
        if ordering in _FAITHFUL:
            config = dataclasses.replace(config, attention_scale=c.scale)
        if recovery == "mean":
            small["blocks"] = add_means(small["blocks"], _missing_means(tree, small, plan))
        params = {group: small[group] for group in small if group not in _BESIDE}
        if recovery == "ridge" and self._calibration is not None:
            params = self._calibration.repair(params, config, small["channels"]["index"])
        params, whole = jax.tree.map(jnp.asarray, params), self.encoder.identity
        return dataclasses.replace(self.encoder, config=config, params=params, whole=whole)

    def _check(self, ordering: str, recovery: str, axes: tuple[str, ...]) -> None:
        for kind, name, known in (("ordering", ordering, ORDERINGS), ("recovery", recovery, RECOVERIES)):
            if name not in known:
                raise UserError(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")
        if axes == ("layers",) and (ordering, recovery) != ("first", "none"):
            raise UserError(f"ordering={ordering}, recovery={recovery}: the first layers are kept as they are")
        if "layers" in axes and recovery == "mean":
            raise UserError("recovery=mean: is of cuts in width alone; take none or ridge, or cut the layers first")
        if self.encoder.config.relative and "head_dim" in axes and ordering != "first":
            raise UserError(f"ordering={ordering}: relative positions have one order for all heads; take first")
        needy = [name for name in (ordering, recovery) if name in _NEED_IMAGES]
        if needy and self._calibration is None:
            raise UserError(f"{needy[0]!r} needs calibration images, a few hundred without labels")

    def _reorder(self, ordering: str, axes: tuple[str, ...], seed: int) -> tuple[Any, ViTConfig]:
        """The full encoder in another order, in numpy, with what is known of its activations beside it."""
        params, c = cuttable(self.encoder.params, self.encoder.config, axes)
        tree = jax.tree.map(np.asarray, params)
        if self._calibration is not None:
            tree["moments"] = self._calibration.moments
        elif ordering == "svd":
            tree["moments"] = weight_moments(tree["blocks"])
        tree["channels"] = {"index": np.arange(c.width)}
        return reorder(tree, _names(tree, c), ordering, axes, seed), c


# What goes through an ordering and a cut with the parameters.
_BESIDE = {"moments": MOMENT_NAMES, "channels": {"index": ("embed",)}}


def _names(tree: Any, c: ViTConfig) -> Any:
    return abstract_vit(c)[1] | {group: names for group, names in _BESIDE.items() if group in tree}


def _missing_means(tree: Any, small: Any, plan: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The mean outputs that the cut took from every sublayer, in the channels that are left."""
    channels = plan.get("embed")
    return {group: mean_output(tree, group)[:, :channels] - mean_output(small, group) for group in OUTPUTS}
