"""Fine-tunes a pretrained encoder, whole or cut, and the head of a task on labelled images.

    python -m scaling.finetune --checkpoint=DIR --config=finetune.py --workdir=DIR [--config.path.to.field=value ...]

`--config.width_ratio=0.25 --config.ordering=svd --config.recovery=ridge` cuts the encoder first; see
`scaling.features`. `--config=segment.py:pairs:DIR` learns the class of every pixel from masks.
`--config.image_size=512` takes images of another size than the checkpoint; with `--config.image_width=1024` in addition
they are twice as wide as high. With `--config.data.crop=ratio`, or `--config.test_stride=N`, test images of any size
are predicted whole, in overlapping windows; otherwise their central part is resized. `pictures/` shows a few of them
beside the truth. `--config=detect.py:dota:DIR` learns to find objects as oriented boxes; test images are resized, and
the boxes scored by the official rules. For classes of images, `confusion.csv` and `figures/confusion.png` show which
classes are confused, and `wrong.csv` names the images. `--config=finetune_slimmable.py` trains one classifier that is
usable at eight widths, and scores each. With `--config.checkpoint.best=eval_loss --config.early_stopping=3`, the run
ends after three consecutive evaluations without improvement, and the best step is scored. `scaling.predict` applies the
fine-tuned model to new images. Starting the same command again resumes from the newest checkpoint. The working
directory is laid out as by `scaling.train`, plus `rows.jsonl` with the scores on the test split (the schema of
`scaling.core.rows`).
"""

import contextlib
import dataclasses
import logging

from etils import epath

from scaling import cli
from scaling.core.config import config_of
from scaling.core.errors import UserError
from scaling.core.flags import overridden
from scaling.core.paths import BEST, check_folder, run_name, unmade
from scaling.core.rows import Results, Row
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.evaluation.confusion import Confusion, label_table, write_wrong
from scaling.evaluation.scores import Predictions
from scaling.objectives import TASKS
from scaling.parallel import hosts
from scaling.studies.rows import finetuned_rows
from scaling.tasks.base import Scores
from scaling.tasks.cutting import cut_for
from scaling.tasks.finetuning import Finetuned, Finetuning
from scaling.tasks.resolving import of_own_source
from scaling.tasks.slimmable import WidthPredictions
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped
from scaling.training.loss_curve import loss_curve
from scaling.training.stored_config import CutConfig
from scaling.training.workdir import losses, on_screen

log = logging.getLogger(__name__)


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.config(FinetuneConfig, "The recipe, by path or by bare name.")
    define.enum("task", None, sorted(TASKS), "Task that the recipe must have.")
    define.path("workdir", None, "Working directory of the run; resumes from its newest checkpoint.")
    define.change()
    define.dry_run("train")
    define.processes()


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    cli.require(flags, "checkpoint=DIR", "config=FILE", "workdir=DIR")
    c = config_of(FinetuneConfig, flags.config)
    c.check()
    if flags.task not in (None, c.task.name):
        raise UserError(f"--task={flags.task}: the config is a recipe for {c.task.name}; give one for {flags.task}")
    cli.join(flags)
    with unmade() if flags.dry_run else contextlib.nullcontext():
        workdir = check_folder("workdir", flags.workdir, checkpoints=True)
    encoder = _encoder(flags, c)
    with of_own_source(c, overridden(flags)):
        tuning = Finetuning(encoder, c)
    if flags.dry_run:
        tuning.rehearse(workdir, flags.change)
        return 0
    tuned = tuning.run(workdir, flags.change, on_screen)
    if isinstance(tuned, Stopped):
        return tuned.exit_code
    pictures = tuning.draw(tuned.trained.state, workdir / "pictures")
    if hosts.is_first():
        name = run_name(flags.checkpoint)
        if rows := losses(workdir):
            loss_curve(workdir / "figures" / "loss.png", rows)
        Results(workdir / "rows.jsonl").add(rows_of(name, tuned.config, tuned.predictions, encoder))
        print(tuned.summary())
        if isinstance(tuned.predictions, Predictions):
            _tell_classes(tuned, tuning.source.info.classes, workdir)
        print(f"rows     {workdir / 'rows.jsonl'}")
        scored = workdir / BEST if c.early_stopping else workdir
        print(f"next     python -m scaling.predict --checkpoint={scored} --input=IMAGES --output=DIR")
        if pictures:
            print(f"pictures {workdir / 'pictures'}, {len(pictures)} test images beside their truth")
    return 0


def rows_of(name: str, c: FinetuneConfig, found: Scores, encoder: Encoder) -> list[Row]:
    """The rows of the scores of a fine-tuned encoder; of a slimmable classifier, those of every trained width.

    Args:
      name: name of the model.
      c: the recipe as it was run.
      found: predictions for the test split.
      encoder: the initial encoder, cut by the recipe.
    """
    rows = finetuned_rows(name, c, encoder, found)
    if not isinstance(found, WidthPredictions):
        return rows
    first = CutConfig(width_ratio=c.width_ratio, mode=c.mode, ordering=c.ordering, recovery=c.recovery)
    whole = encoder if c.width_ratio == 1 else encoder.after(first)
    for cut, predictions in found.narrower:
        narrow = dataclasses.replace(whole, config=cut.model)
        fields = narrow.cut_fields(cut.width, found.mode, "first", "none")
        rows += finetuned_rows(name, c, dataclasses.replace(encoder, config=cut.model), predictions, **fields)
    return rows


def _tell_classes(tuned: Finetuned, classes: tuple[str, ...], workdir: epath.Path) -> None:
    """Prints the score of each class; for single-label classification, also writes and draws the confusion matrix, and
    lists the images that are taken for another class.
    """
    predictions = tuned.predictions
    if predictions.truth.ndim == 2:
        print(label_table(predictions, classes))
        return
    confusion = Confusion.of(predictions, classes)
    confusion.write(workdir / "confusion.csv")
    confusion.draw(workdir / "figures" / "confusion.png")
    print(confusion.table())
    print(f"classes  {workdir / 'confusion.csv'}, drawn in {workdir / 'figures' / 'confusion.png'}")
    if tuned.names:
        wrong = write_wrong(workdir / "wrong.csv", predictions, tuned.names, classes)
        print(f"wrong    {wrong:,} of {len(tuned.names):,} images, by name in {workdir / 'wrong.csv'}")


def _encoder(flags: cli.Flags, c: FinetuneConfig) -> Encoder:
    """The pretrained encoder, cut as the recipe says."""
    if (c.ordering, c.recovery) == ("first", "none"):  # only the parameters that are kept are read
        return load_encoder(flags.checkpoint, flags.step, c.width_ratio, c.mode)
    return cut_for(load_encoder(flags.checkpoint, flags.step), c)


if __name__ == "__main__":
    cli.run(main)
