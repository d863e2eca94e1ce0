"""The settings of a data-efficiency study."""

import dataclasses
from collections.abc import Mapping

from scaling.core.errors import UserError
from scaling.objectives.base import ObjectiveConfig
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.slimming.widths import mode_axes
from scaling.training.config import FinetuneConfig

PRETRAINED, RANDOM, EMBEDDING = "pretrained", "random", "embedding"
WEIGHTS = (PRETRAINED, RANDOM, EMBEDDING)
_CUT = ("width_ratio", "mode", "ordering", "recovery")  # fields of the recipe that are set by an encoder choice
PUBLISHED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class EncoderChoice:
    """One encoder of a study, derived from the checkpoint.

    Attributes:
      weights: `pretrained`; `random`, the same architecture before training, drawn by the seed; or `embedding`, the
        pretrained encoder with disabled blocks, so that the head reads embedded patches.
      width_ratio, mode, ordering, recovery: the cut before training; see `scaling.features`. A cut that needs images
        uses some of all training images, without labels, whatever the fraction.
      frozen: whether only the head is trained, if the task supports it.
    """

    weights: str = PRETRAINED
    width_ratio: float = 1.0
    mode: str = "inner"
    ordering: str = "first"
    recovery: str = "none"
    frozen: bool = False

    def check(self, name: str) -> None:
        """Raises UserError for unknown values."""
        known = {"weights": WEIGHTS, "ordering": tuple(ORDERINGS), "recovery": tuple(RECOVERIES)}
        for field, values in known.items():
            if getattr(self, field) not in values:
                raise UserError(f"encoders.{name}.{field}={getattr(self, field)!r}: must be one of {', '.join(values)}")
        mode_axes(self.mode)
        if not 0 < self.width_ratio <= 1:
            raise UserError(f"encoders.{name}.width_ratio={self.width_ratio}: must be above 0 and at most 1")
        if self.weights == EMBEDDING and (self.width_ratio, self.frozen) != (1.0, True):
            raise UserError(
                f"encoders.{name}.weights={EMBEDDING}: is a control, only for frozen encoders; set frozen=True, "
                "without a cut"
            )


@dataclasses.dataclass(frozen=True)
class EfficiencyConfig:
    """A data-efficiency study: one fine-tuning for every encoder, fraction and seed, all with equally many steps.

    Attributes:
      study: name of the study in rows.
      recipe: recipe of the fine-tuning. Its epochs refer to all training images: the images of a fraction are seen
        proportionally more often.
      encoders: encoder choices by name.
      fractions: fractions of the training images; those of a seed are nested, see `scaling.data.sources.fraction`.
      seeds: seeds of the draw of the images, of the head and of the order of the data.
    """

    study: str = "efficiency"
    recipe: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    encoders: dict[str, EncoderChoice] = dataclasses.field(default_factory=lambda: {"pretrained": EncoderChoice()})
    fractions: tuple[float, ...] = PUBLISHED
    seeds: tuple[int, ...] = (0, 1, 2)

    def check(self) -> None:
        """Raises UserError for settings that are wrong, before anything is read."""
        for field in ("encoders", "fractions", "seeds"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty: there is nothing to train")
        if wrong := [x for x in self.fractions if not 0 < x <= 1]:
            raise UserError(f"fractions={wrong[0]}: must be fractions of the training images, above 0 and at most 1")
        for part, names in ((self.recipe, ("seed", *_CUT)), (self.recipe.data, ("fraction", "fraction_seed"))):
            for name in names:
                if getattr(part, name) != getattr(type(part), name):
                    raise UserError(f"recipe: {name} follows from encoders, fractions and seeds; leave it out")
        if self.recipe.data.holds_out:
            raise UserError(
                "recipe.data.eval_split='': a held-out part would change with the fraction; set a split for "
                "monitoring, such as test"
            )
        for name, choice in self.encoders.items():
            choice.check(name)
            self.recipe_of(choice, 1.0, self.seeds[0]).check()

    def recipe_of(self, choice: EncoderChoice, fraction: float, seed: int) -> FinetuneConfig:
        """The recipe of one fine-tuning, before the number of its images is known; see `lengthened`.

        Raises:
          UserError: the task cannot train the head alone.
        """
        cut = {field: getattr(choice, field) for field in _CUT}
        data = dataclasses.replace(self.recipe.data, fraction=fraction, fraction_seed=seed)
        task = _frozen(self.recipe.task) if choice.frozen else self.recipe.task
        return dataclasses.replace(self.recipe, **cut, data=data, task=task, seed=seed)

    def settings_of(self, choice: EncoderChoice) -> Mapping[str, object]:
        """Everything that one fine-tuning depends on, except fraction and seed."""
        return {"recipe": dataclasses.asdict(self.recipe), "encoder": dataclasses.asdict(choice)}


def lengthened(c: FinetuneConfig, images: int, of: int) -> FinetuneConfig:
    """The recipe with as many steps on `images` of `of` training images as on all of them."""
    return dataclasses.replace(c, epochs=c.epochs * of / images, warmup_epochs=c.warmup_epochs * of / images)


def _frozen(task: ObjectiveConfig) -> ObjectiveConfig:
    if not hasattr(task, "frozen"):
        raise UserError(
            f"encoders: the task {task.name} cannot be trained with a frozen encoder; `scaling.probe` scores frozen "
            "features"
        )
    frozen: ObjectiveConfig = dataclasses.replace(task, frozen=True)  # type: ignore[type-var]
    return frozen
