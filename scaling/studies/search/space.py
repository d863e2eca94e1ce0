"""The candidates of a search: sets of blocks, and shares of every other axis."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from scaling.compute.counting import encoder_cost
from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.models.variants import Architecture
from scaling.models.vit import abstract_vit, cuttable
from scaling.slimming.cutting import axis_sizes
from scaling.slimming.depth import shortgpt
from scaling.slimming.widths import MODES, keep, mode_axes
from scaling.training.stored_config import named_blocks

LAYERS = "layers"
BLOCKS = ("prefix", "shortgpt", "any", "all")
_ANY = 8  # largest number of blocks for which every set is a candidate: 255 sets

Blocks = tuple[int, ...]


@dataclasses.dataclass(frozen=True, order=True)
class Widths:
    """Shares kept of the axes other than depth: (axis, share) for those that are cut."""

    shares: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return ", ".join(f"{axis} {share:g}" for axis, share in self.shares) or "whole width"

    @property
    def ratios(self) -> dict[str, float]:
        return dict(self.shares)

    @property
    def cuts(self) -> tuple[tuple[str, float], ...]:
        """(mode, width ratio) of the cuts that give these widths: a single cut if all cut axes have the same share,
        else one per axis.
        """
        if len({share for _, share in self.shares}) != 1:
            return self.shares
        return (("+".join(axis for axis, _ in self.shares), self.shares[0][1]),)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One candidate encoder.

    Attributes:
      widths: widths of its blocks.
      blocks: indices of its blocks, from 0.
      of: number of blocks of the whole encoder.
    """

    widths: Widths
    blocks: Blocks
    of: int

    def __str__(self) -> str:
        return f"blocks {named_blocks(self.blocks)} of {self.of}, {self.widths}"

    @property
    def whole_width(self) -> bool:
        return not self.widths.shares

    @property
    def whole_depth(self) -> bool:
        return len(self.blocks) == self.of


class Space:
    """All candidates of a search.

    Args:
      architecture: architecture of the whole encoder.
      axes: axes to search, or one mode of `scaling.slimming.widths`; `layers` is the depth.
      widths: shares of an axis; 1 is always included.
      blocks: `prefix`, the first ones; `shortgpt`, for every number those with the largest influence; `any`, every set,
        for up to 8 blocks; `all`: prefix and shortgpt.
      influence: influence of every block [L], if `blocks` needs it: 1 - the cosine of its input and output.

    Attributes:
      sets: sets of blocks.
      shares: axis -> shares that can be kept of it, ascending.
      cost: cost of a candidate, see `scaling.compute.counting.encoder_cost`; cached.

    Raises:
      UserError: axes that cannot be cut, invalid shares, or too many blocks for `any`.
    """

    def __init__(
        self,
        architecture: Architecture,
        axes: Sequence[str],
        widths: Sequence[float],
        blocks: str = "prefix",
        influence: np.ndarray | None = None,
    ):
        self.architecture, self.whole = architecture, architecture.config
        if not axes or len(set(axes)) < len(axes):
            raise UserError(
                f"--axes={','.join(axes)}: name every axis once: layers, branch, heads, head_dim, mlp, embed"
            )
        axes = mode_axes("+".join(axes))
        if wrong := [s for s in widths if not 0 < s <= 1]:
            raise UserError(f"--widths={wrong[0]:g}: must be fractions of an axis, above 0 and at most 1")
        self._sizes = axis_sizes(*abstract_vit(self.whole))
        self._positions_kept = cuttable({}, self.whole, ("embed",))[1]  # as a parameter, so that they are cut too
        self._axes = [axis for axis in axes if axis != LAYERS and self._sizes[axis] > 1]
        self.shares = {axis: self._distinct(axis, widths) for axis in self._axes}
        self.sets = _sets(self.whole, blocks, influence) if LAYERS in axes else [tuple(range(self.whole.depth))]
        self.cost = functools.cache(self._cost)
        if len(self.sets) == 1 and all(len(shares) == 1 for shares in self.shares.values()):
            raise UserError(f"--axes={','.join(axes)}, --widths={','.join(map(str, widths))}: nothing can be cut")

    def _distinct(self, axis: str, widths: Sequence[float]) -> list[float]:
        """Shares that keep different numbers of units, ascending; for equal numbers the largest share."""
        by_size = {keep(self._sizes[axis], share): share for share in sorted({*widths, 1.0})}
        return list(by_size.values())

    def size(self, axis: str, share: float) -> int:
        """Number of units of an axis that a share keeps."""
        return keep(self._sizes[axis], share)

    def __len__(self) -> int:
        return len(self.sets) * int(np.prod([len(shares) for shares in self.shares.values()]))

    @property
    def all_widths(self) -> list[Widths]:
        return [self._widths(shares) for shares in itertools.product(*self.shares.values())]

    def _widths(self, shares: Sequence[float]) -> Widths:
        return Widths(tuple((a, s) for a, s in zip(self._axes, shares, strict=True) if s < 1))

    @property
    def uniform(self) -> list[Widths]:
        """Widths with one common share for the searched axes of the published mode `inner`, or for all axes if none
        of these is searched; the full width comes last.
        """
        cut = [axis for axis in self._axes if axis in MODES["inner"]] or self._axes
        shares = sorted({share for axis in cut for share in self.shares[axis]})
        found = [self._widths([self._at_least(a, s) if a in cut else 1.0 for a in self._axes]) for s in shares]
        return list(dict.fromkeys(found)) or [Widths()]

    def _at_least(self, axis: str, share: float) -> float:
        return next(s for s in self.shares[axis] if self.size(axis, s) >= self.size(axis, share))

    def beside(self, widths: Widths) -> Iterator[Widths]:
        """Widths that differ by one step along one axis."""
        shares = [widths.ratios.get(axis, 1.0) for axis in self._axes]
        for i, axis in enumerate(self._axes):
            at = self.shares[axis].index(shares[i])
            for step in (at - 1, at + 1):
                if 0 <= step < len(self.shares[axis]):
                    yield self._widths([*shares[:i], self.shares[axis][step], *shares[i + 1 :]])

    def candidates(self, widths: Widths) -> list[Candidate]:
        return [Candidate(widths, blocks, self.whole.depth) for blocks in self.sets]

    def whole_depth(self, widths: Widths) -> Candidate:
        """The candidate of these widths that has all blocks."""
        return Candidate(widths, tuple(range(self.whole.depth)), self.whole.depth)

    @property
    def uncut(self) -> Candidate:
        return self.whole_depth(Widths())

    def config(self, candidate: Candidate) -> ViTConfig:
        """Its architecture, except for the scale of logits."""
        plan = {axis: self.size(axis, share) for axis, share in candidate.widths.shares}
        c = self._positions_kept if "embed" in plan else self.whole
        return c.resized(plan).with_blocks(candidate.blocks)

    def _cost(self, candidate: Candidate) -> tuple[int, int, dict[str, float]]:
        return encoder_cost(self.architecture, self.config(candidate))

    @property
    def smallest(self) -> Widths:
        """The smallest share of every axis."""
        return self._widths([shares[0] for shares in self.shares.values()])

    @property
    def cheapest(self) -> list[Candidate]:
        """Candidates with the smallest widths, one for every set of blocks."""
        return self.candidates(self.smallest)


def _sets(c: ViTConfig, blocks: str, influence: np.ndarray | None) -> list[Blocks]:
    every, found = tuple(range(c.depth)), []
    if blocks in ("prefix", "all"):
        found += [every[:n] for n in range(1, c.depth + 1)]
    if blocks in ("shortgpt", "all"):
        assert influence is not None
        cosine = np.eye(c.depth + 1)
        cosine[range(c.depth), range(1, c.depth + 1)] = 1 - influence
        found += [shortgpt(cosine, n).keep for n in range(1, c.depth)] + [every]
    if blocks == "any":
        if c.depth > _ANY:
            raise UserError(f"--blocks=any: {c.depth} blocks have too many subsets; choose prefix, shortgpt or all")
        found += [s for n in every for s in itertools.combinations(every, n + 1)]
    return [s for s in dict.fromkeys(found) if _possible(c, s)]


def _possible(c: ViTConfig, blocks: Blocks) -> bool:
    """Whether one of the blocks attends to all tokens, which an encoder with windows needs."""
    return not c.window or any(block + 1 in c.attending_to_all for block in blocks)
