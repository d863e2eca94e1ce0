"""Trainings: pretraining, and fine-tuning of a pretrained encoder."""

import os
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from etils import epath

from scaling.api.checks import checked
from scaling.core.config import read_config
from scaling.core.paths import user_path
from scaling.core.wording import in_python
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.tasks import finetuning
from scaling.tasks.cutting import cut_for
from scaling.tasks.resolving import of_own_source
from scaling.training import pretraining
from scaling.training.config import FinetuneConfig, RunConfig, TrainConfig
from scaling.training.loop import Stopped
from scaling.training.workdir import in_files, on_screen

Config = str | os.PathLike[str] | Mapping[str, Any] | RunConfig
Outcome = TypeVar("Outcome")


@checked
def pretrain(
    config: Config,
    workdir: epath.PathLike,
    fields: Mapping[str, Any] | None = None,
    *,
    change: Collection[str] = (),
    verbose: bool = False,
) -> Encoder:
    """Pretrains an encoder in a working directory; the same call resumes.

    Args:
      config: a config file by path or by its bare name in `configs/`, a `TrainConfig`, or nested fields.
      workdir: folder of the run; local or gs://.
      fields: values that override fields, by dotted path, like `--config.path.to.field=value`.
      change: names of fields whose values may differ from those that the run was started with, like --change.
      verbose: whether to print progress, with a progress bar.

    Returns:
      The encoder of the last step. If the field checkpoint.best is set, `load(f"{workdir}/best")` reads that of the
      best step.

    Raises:
      UserError: wrong input, or a working directory of another run.
      TrainingError: the loss is not finite, too many images are unreadable, or a checkpoint cannot be written.
      KeyboardInterrupt: Ctrl-C or SIGTERM, after saving the last step.

    >>> sizes = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64}
    >>> fields = {"steps": 2, "batch_size": 16, "data.source": "scenes?size=16&count=64"}
    >>> fields |= {f"model.{name}": size for name, size in sizes.items()}
    >>> encoder = scaling.pretrain("quickstart.py", "runs/pretrained", fields)
    >>> encoder.step
    2
    """
    c = read_config(TrainConfig, config, fields or {})
    c.check()
    folder = user_path("workdir", workdir)
    _finished(pretraining.pretrain(c, folder, change, watch=on_screen if verbose else in_files))
    return load_encoder(folder)


@checked
def finetune(
    encoder: Encoder,
    config: Config,
    workdir: epath.PathLike,
    fields: Mapping[str, Any] | None = None,
    *,
    change: Collection[str] = (),
    verbose: bool = False,
) -> finetuning.Finetuned:
    """Trains an encoder and the head of a task on labelled images, and scores them on the test split.

    Args:
      encoder: see `load`; it is cut first if the recipe asks for a cut (width_ratio, ordering, recovery).
      config: a recipe such as finetune.py, segment.py:pairs:DIR or detect.py:dota:DIR, a `FinetuneConfig`, or nested
        fields.
      workdir, fields, change, verbose: see `pretrain`. `load(workdir)` reads the fine-tuned encoder; with the field
        early_stopping, the scored model is in `workdir/best`.

    Returns:
      An object with `scores()` on the test split, in [0, 1], their `summary()` as text, and the `predictions` with the
      truth. A classifier is applied by `predict(tuned, images)`, other tasks by the command `scaling predict`.

    Raises:
      UserError, TrainingError, KeyboardInterrupt: see `pretrain`.

    >>> encoder = scaling.load("runs/tiny")
    >>> fields = {"epochs": 1.0, "warmup_epochs": 0.0, "batch_size": 16, "test_split": "test[:32]"}
    >>> fields |= {"data.source": "scenes?size=16&count=64", "data.split": "train"}
    >>> tuned = scaling.finetune(encoder, "finetune.py", "runs/finetuned", fields)
    >>> tuned  # doctest: +ELLIPSIS
    Finetuned(classification on scenes?size=16&count=64, split test[:32]: accuracy ...%, macro_accuracy ...%)
    """
    c = read_config(FinetuneConfig, config, fields or {})
    c.check()
    folder = user_path("workdir", workdir)
    if (c.width_ratio, c.ordering, c.recovery) != (1.0, "first", "none"):
        encoder = cut_for(encoder, c)
    watch = on_screen if verbose else in_files
    with of_own_source(c, fields or {}):
        return _finished(finetuning.finetune(encoder, c, folder, change, watch))


def _finished(outcome: Outcome | Stopped) -> Outcome:
    if isinstance(outcome, Stopped):
        raise KeyboardInterrupt(in_python(str(outcome)))
    return outcome
