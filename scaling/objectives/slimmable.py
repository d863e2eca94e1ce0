"""Slimmable training: one step trains an encoder at several widths, so that each cut of it can be used directly.

An objective that wraps another. By the sandwich rule of US-Nets (Yu and Huang, 1903.05134; JiahuiYu/
slimmable_networks) every step trains the full width, the smallest and some drawn at random, and their gradients are
summed before one update. Each width is a real cut (`scaling.slimming.cutting`) of the current parameters, with the
shapes and the operations of the smaller network. Widths are drawn from a grid: a program has one branch for each, and
all devices take the same.

Narrower networks can learn from the full one, through whose outputs no gradient then flows. The remedies of SlimCLR
(mzhaoshuai/SlimCLR), a slow start and weights by size, are off by default.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar, cast

from scaling.compute.counting import Narrower, Tokens
from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.models.vit import cuttable_config
from scaling.objectives.base import OBJECTIVES, Inputs, ObjectiveConfig, objective, objective_config
from scaling.objectives.cuttable import Cuttable, CuttableConfig
from scaling.objectives.sandwich import Cut, Narrow, Recipe, Sandwich, trained_of
from scaling.slimming.cutting import axis_sizes, cut_shapes
from scaling.slimming.widths import keep, mode_axes, mode_plan

WEIGHTS = ("equal", "width", "full")
_IN_DECODER = ("heads", "head_dim", "mlp")  # all axes but the width of its tokens and its depth


@objective
@dataclasses.dataclass(frozen=True)
class Slimmable:
    """The configuration of the objective.

    Attributes:
      wraps: the objective that is trained at every width.
      mode: axes that are cut; see `scaling.slimming.widths.mode_axes`.
      smallest, number: smallest width of the grid, and number of its widths, which are equally spaced up to 1.
      widths: explicit widths instead of the grid; 1 is always included. Widths that keep the same number of units on
        every axis count as one.
      random: number of widths drawn in each step, from those between the smallest and the full width.
      with_smallest: whether the smallest width is trained in every step.
      decoder: whether the decoder of masked autoencoding is cut too, in heads and MLP; its tokens keep their width.
      distillation: output of the full network that narrower ones learn: `none`; for masked autoencoding `tokens`, or
        `outputs` (the predicted pixels); for contrast `similarities` (to the keys).
      distilled: weight of distillation in the loss of a narrower network: half in SlimCLR, 1 in US-Nets.
      weights: weights of the widths' gradients in their sum: `equal`, all 1, as in US-Nets; `width`, the width ratio s;
        or `full`, 1 for narrower widths, and for the full width 1 plus the sum of the step's other widths.
      slow_start: fraction of the run's steps during which only the full width is trained.
    """

    place: ClassVar[str] = "objective"  # name in a configuration
    cuttable: ClassVar[str] = "mae or moco"  # kinds that it wraps

    name: str = "slimmable"
    wraps: ObjectiveConfig = dataclasses.field(
        default_factory=partial(objective_config, "mae"), metadata={"kinds": OBJECTIVES}
    )
    mode: str = "inner"
    smallest: float = 0.125
    number: int = 8
    widths: tuple[float, ...] = ()
    random: int = 3
    with_smallest: bool = True
    decoder: bool = False
    distillation: str = "none"
    distilled: float = 0.5
    weights: str = "equal"
    slow_start: float = 0.0

    def check(self, model: ViTConfig) -> None:
        if not hasattr(self.wraps, "resized"):
            raise UserError(
                f"{self.place}.wraps.name={self.wraps.name}: cannot be cut, because it does not implement "
                "scaling.objectives.cuttable; "
                f"choose {self.cuttable}"
            )
        try:
            self.wraps.check(model)
        except UserError as e:
            raise UserError(str(e).replace(f"{self.place}.", f"{self.place}.wraps.")) from e
        self._check_fields()
        if len(cuts := self.cuts(model)) == 1 and self.random:
            widths = ", ".join(f"{cut.width:g}" for cut in cuts)
            raise UserError(
                f"{self.place}.random={self.random}: none of the widths {widths} and 1 is between the smallest and the "
                f"full one; add some to {self.place}.widths, or set {self.place}.random=0"
            )

    def _check_fields(self) -> None:
        kinds = ("none", *self._wraps.distillations)
        for field, known in (("distillation", kinds), ("weights", WEIGHTS)):
            if getattr(self, field) not in known:
                raise UserError(f"{self.place}.{field}={getattr(self, field)}: must be one of {', '.join(known)}")
        if self.distillation != "none" and not self.narrower:
            raise UserError(
                f"{self.place}.distillation={self.distillation}: no narrower network is trained; set "
                f"{self.place}.random"
            )
        for field, least in (("random", 0), ("number", 2)):
            if getattr(self, field) < least:
                raise UserError(f"{self.place}.{field}={getattr(self, field)}: must be at least {least}")
        if not 0 <= self.distilled <= 1 or not 0 <= self.slow_start < 1:
            raise UserError(
                f"{self.place}.distilled={self.distilled}, {self.place}.slow_start={self.slow_start}: must be in [0, "
                "1], the latter below 1"
            )
        for field, widths in (("smallest", (self.smallest,)), ("widths", self.widths)):
            if wrong := [s for s in widths if not 0 < s <= 1]:
                raise UserError(f"{self.place}.{field}={wrong[0]:g}: must be above 0 and at most 1")

    @property
    def _wraps(self) -> CuttableConfig:
        return cast(CuttableConfig, self.wraps)

    @property
    def narrower(self) -> bool:
        """Whether any width but the full one is trained."""
        return self.with_smallest or self.random > 0

    @property
    def grid(self) -> tuple[float, ...]:
        """The widths below 1, in order."""
        step = (1 - self.smallest) / (self.number - 1)
        widths = self.widths or [self.smallest + i * step for i in range(self.number)]
        return tuple(sorted({s for s in widths if s < 1}))

    def cuts(self, model: ViTConfig) -> tuple[Cut, ...]:
        """The narrower networks, from the smallest on.

        Raises:
          UserError: there are none.
        """
        if not self.narrower:
            return ()
        shapes, names = self.wraps.abstract(model)
        sizes, cuts = axis_sizes(shapes, names), dict[tuple[int, ...], Cut]()
        for width in self.grid:
            plan = self._plan(sizes, width)
            if any(plan[axis] < sizes[axis] for axis in plan):
                whole = cuttable_config(model, plan)
                beside = self._wraps.resized({axis: k for axis, k in plan.items() if "/" in axis})
                own = {axis: k for axis, k in plan.items() if "/" not in axis}
                cuts.setdefault(tuple(plan.values()), Cut(width, plan, whole.resized(own), beside))
        if not cuts:
            has = ", ".join(f"{sizes[axis]} {axis}" for axis in self._plan(sizes, 1.0))
            widths = ", ".join(f"{s:g}" for s in (*self.grid, 1.0))
            raise UserError(
                f"{self.place}.widths={widths}: all are the full width of this encoder, which has {has}; choose "
                "smaller ones"
            )
        found = tuple(cuts.values())
        self._check_shapes(model, shapes, names, found[0])
        return found

    def trained(self, model: ViTConfig) -> tuple[Cut, ...]:
        """The narrower networks that are trained."""
        return trained_of(self, self.cuts(model))

    def _plan(self, sizes: dict[str, int], width: float) -> dict[str, int]:
        try:
            cut, plan = mode_axes(self.mode), mode_plan(sizes, width, self.mode)
        except UserError as e:
            raise UserError(f"{self.place}.mode={self.mode}: {e}; choose another mode") from e
        beside = [f"decoder/{axis}" for axis in cut if axis in _IN_DECODER]
        if self.decoder and not set(beside) & sizes.keys():
            raise UserError(
                f"{self.place}.decoder=True: {self.wraps.name} has none with {', '.join(cut)}; leave it out"
            )
        decoder = {axis: keep(sizes[axis], width) for axis in beside if axis in sizes} if self.decoder else {}
        return plan | decoder

    def _check_shapes(self, model: ViTConfig, shapes: Any, names: Any, smallest: Cut) -> None:
        """Raises UserError if the kept sizes give networks that differ from those that their own configuration
        describes.
        """
        expected = axis_sizes(cut_shapes(shapes, names, smallest.plan), names)
        made = axis_sizes(*smallest.objective.abstract(smallest.model))
        for axis, size in expected.items():
            if made.get(axis) != size:
                raise UserError(
                    f"{self.place}.wraps.name={self.wraps.name}: cannot be cut, because {axis} of its networks does "
                    f"not follow the width; choose {self.cuttable}"
                )

    def abstract(self, model: ViTConfig) -> tuple[Any, Any]:
        return self.wraps.abstract(model)

    def tokens(self, model: ViTConfig, whole: bool = False) -> Tokens:
        """Tokens of an average step: over the widths that are drawn, and over the steps of a run with a slow start."""
        full = self.wraps.tokens(model, whole)
        if whole or not self.narrower:
            return full
        passed, forward = list[Narrower](), list[Narrower]()
        cuts, share = self.cuts(model), 1 - self.slow_start
        for i, cut in enumerate(cuts):
            times = share * (self.random / len(cuts[1:]) if i else float(self.with_smallest))
            tokens = cut.objective.tokens_of_cut(cut.model)
            passed.append(Narrower(cut.plan, times, dataclasses.replace(tokens, forward_only=None)))
            if tokens.forward_only:
                forward.append(Narrower(cut.plan, times, tokens.forward_only))
        without = full.forward_only and dataclasses.replace(full.forward_only, narrower=tuple(forward))
        return dataclasses.replace(full, narrower=tuple(passed), forward_only=without)

    def phases(self, model: ViTConfig) -> tuple[tuple[float, Tokens], ...]:
        """The shares of a run after which an image's use of the parameters changes, with the tokens of each phase."""
        from_start = dataclasses.replace(self, slow_start=0.0).tokens(model)
        slow = ((0.0, self.wraps.tokens(model)), (self.slow_start, from_start))
        return slow if self.slow_start else ((0.0, from_start),)

    def scaled(self, model: ViTConfig, base: "Slimmable", base_model: ViTConfig, deep: bool) -> "Slimmable":
        return dataclasses.replace(self, wraps=self.wraps.scaled(model, base.wraps, base_model, deep))

    def make(self, model: ViTConfig, inputs: Inputs) -> Sandwich:
        narrow = tuple(Narrow(cut, model, inputs) for cut in self.cuts(model))
        return Sandwich(copied(Recipe, self), cast(Cuttable, self.wraps.make(model, inputs)), narrow, inputs.steps)
