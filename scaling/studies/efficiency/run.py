"""The fine-tunings of a data-efficiency study as jobs of `scaling.studies.grid`."""

import dataclasses
import itertools
from typing import Any

from etils import epath

from scaling.core.rows import Row, config_hash
from scaling.data.sources.fraction import classes_at, nested_order, taken
from scaling.data.sources.registry import open_source
from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.parallel import hosts
from scaling.studies.efficiency.settings import EMBEDDING, RANDOM, EfficiencyConfig, EncoderChoice, lengthened
from scaling.studies.grid import StoppedError
from scaling.studies.rows import finetuned_rows
from scaling.studies.slimming.run import cell_cost
from scaling.tasks.cutting import cut_for
from scaling.tasks.finetuning import Finetuning
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped

RUNS = "runs"  # folder of the run being trained


@dataclasses.dataclass(frozen=True)
class FinetuningJob:
    """The fine-tuning for one encoder, fraction and seed.

    Attributes:
      name: name with a hash of everything it depends on.
      choice: the encoder, called `encoder` in the rows.
      recipe: recipe of its training.
      stands_for: hash of everything it depends on except fraction and seed; `config_hash` of its rows.
      images, of: number of training images used, and available.
      study: name of the study in rows.
      whole: the encoder of the checkpoint.
      folder: folder of the study.
    """

    name: str
    choice: EncoderChoice
    encoder: str
    recipe: FinetuneConfig
    stands_for: str
    images: int
    of: int
    study: str
    whole: Encoder
    folder: epath.Path

    @property
    def cost(self) -> float:
        """All jobs have equally many steps; the cost of a step is proportional to the width."""
        return self.choice.width_ratio

    def run(self) -> list[Row]:
        recipe = lengthened(self.recipe, self.images, self.of)
        encoder = made(self.whole, self.choice, recipe)
        workdir = self.folder / RUNS / self.name
        tuned = Finetuning(encoder, recipe).run(workdir)
        if isinstance(tuned, Stopped):
            raise StoppedError(tuned.exit_code)
        fields: dict[str, Any] = {"study": self.study, "images": tuned.images, "config_hash": self.stands_for}
        fields["probe"] = "frozen" if getattr(recipe.task, "frozen", False) else "finetune"
        if self.choice.weights == RANDOM:
            fields |= {"objective": "none", "step": 0, "samples_seen": 0}
        cost = None
        if self.choice.weights == EMBEDDING:  # the head reads the output of the stem
            fields |= {"mode": "control", "ordering": "patch_embedding", "depth_ratio": 0.0}
            stem = dataclasses.replace(encoder.architecture, config=tuned.config.model)
            cost = cell_cost(stem, "control", "patch_embedding", 1.0)
        rows = finetuned_rows(self.encoder, tuned.config, encoder, tuned.predictions, cost, **fields)
        if hosts.is_first():
            workdir.rmtree()
        return rows


def made(whole: Encoder, choice: EncoderChoice, recipe: FinetuneConfig) -> Encoder:
    """The initial encoder of a fine-tuning."""
    if choice.weights == EMBEDDING:
        nothing_added = dataclasses.replace(whole.config, residual_scale=0.0)
        return dataclasses.replace(whole, config=nothing_added, whole=whole.identity)
    return cut_for(random_weights(whole, recipe.seed) if choice.weights == RANDOM else whole, recipe)


def efficiency_jobs(whole: Encoder, model: str, c: EfficiencyConfig, folder: epath.Path) -> list[FinetuningJob]:
    """All fine-tunings, the smallest fractions of all encoders first. Fractions so small that they all become the
    smallest set with every class count once.

    Args:
      whole: the encoder of the checkpoint.
      model: name of the model in rows, to which the name of the choice is added.
      c: the settings.
      folder: folder of the study.

    Raises:
      UserError: the images cannot be read, or have no labels.
    """
    spec, split = c.recipe.data.source, c.recipe.data.split
    of = len(open_source(spec, split))
    classes = classes_at(spec, split, of)
    least = {seed: nested_order(classes, seed)[1] for seed in c.seeds}
    of_all = {"identity": whole.identity, "study": c.study, "model": model}
    jobs: dict[str, FinetuningJob] = {}
    for fraction, seed, (name, choice) in itertools.product(sorted(c.fractions), c.seeds, c.encoders.items()):
        images = taken(fraction, of, least[seed])
        stands_for = config_hash({**c.settings_of(choice), **of_all})
        job = FinetuningJob(
            name=f"{name}_images{images}_seed{seed}_{stands_for}",
            choice=choice,
            encoder=f"{model} {name}",
            recipe=c.recipe_of(choice, fraction, seed),
            stands_for=stands_for,
            images=images,
            of=of,
            study=c.study,
            whole=whole,
            folder=folder,
        )
        jobs.setdefault(job.name, job)
    return list(jobs.values())
