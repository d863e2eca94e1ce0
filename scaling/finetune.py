"""Fine-tunes a pretrained encoder, whole or cut, and a linear head on labelled images.

    python -m scaling.finetune --checkpoint=DIR --config=finetune.py --workdir=DIR [--config.path.to.field=value ...]

`--config.width=0.25 --config.ordering=svd --config.recovery=ridge` cuts the encoder first (see `scaling.features`).
Starting the same command again goes on from the newest checkpoint of the working directory, which holds what that of
`scaling.train` holds, and `rows.jsonl` with the scores on the test split (the schema of `scaling.results`).
"""

import dataclasses
import logging

import numpy as np
from absl import flags
from etils import epath
from ml_collections import config_flags

from scaling import cli
from scaling.analysis.compute import encoder_cost
from scaling.config import from_config_dict
from scaling.errors import UserError
from scaling.evaluation.encoder import Encoder, load_encoder
from scaling.evaluation.finetuning import Finetuning
from scaling.evaluation.metrics import Outcome
from scaling.evaluation.slimmed import slim, uses_images
from scaling.evaluation.splits import read_split
from scaling.evaluation.summary import summary
from scaling.parallel import hosts
from scaling.paths import check_folder
from scaling.results import Results, Row
from scaling.training.config import FinetuneConfig
from scaling.training.metrics import Writer
from scaling.training.workdir import announce, open_writers

log = logging.getLogger(__name__)

_CHECKPOINT = cli.define_path("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, by path or by bare name.")
_WORKDIR = cli.define_path("workdir", None, "Where the run is kept; goes on from its newest checkpoint.")
_CHANGE = cli.define_change_flag()
_JOIN = cli.define_process_flags()


def main(argv: list[str]) -> int:
    del argv
    if not _CHECKPOINT.value or not _WORKDIR.value or _CONFIG.value is None:
        raise UserError("give --checkpoint=DIR, --config=FILE and --workdir=DIR")
    c = from_config_dict(FinetuneConfig, _CONFIG.value)
    c.check()
    _JOIN()
    workdir = check_folder("workdir", _WORKDIR.value, checkpoints=True)
    encoder = _encoder(c)
    tuning = Finetuning(encoder, c)

    def writers(c: FinetuneConfig, workdir: epath.Path, start: int) -> list[Writer]:
        announce(c, tuning.trainer, len(tuning.source), start)
        return open_writers(c, workdir, start)

    outcome = tuning.run(workdir, writers, _CHANGE.value)
    if outcome is None:
        return hosts.stopped("fine-tuning was")
    if hosts.is_first():
        Results(workdir / "rows.jsonl").add(_rows(tuning.config, encoder, outcome))
        what = {"fine-tuned": outcome}
        print(summary("fine-tuning,", c.data.source, len(tuning.source), "train on", what))
        print(f"rows     {workdir / 'rows.jsonl'}")
    return 0


def _encoder(c: FinetuneConfig) -> Encoder:
    """The pretrained encoder, cut as the recipe says."""
    if (c.ordering, c.recovery) == ("first", "none"):
        return load_encoder(_CHECKPOINT.value, _STEP.value, c.width, c.slim)
    full, images = load_encoder(_CHECKPOINT.value, _STEP.value), None
    if uses_images(c.ordering, c.recovery) and c.calibration_images:
        limit, bands = c.calibration_images, c.data.bands
        batches = read_split(full, c.data.source, c.data.split, limit, bands=bands, option="data.bands")
        images = np.concatenate([images for images, _ in batches])
    return slim(full, c.width, c.slim, c.ordering, c.recovery, images, c.seed)


def _rows(c: FinetuneConfig, encoder: Encoder, outcome: Outcome) -> list[Row]:
    params, flops, relative = encoder_cost(encoder.train.model, encoder.config)
    intervals = outcome.intervals()
    settings = {name: value for name, value in dataclasses.asdict(c).items() if name != "encoder"}
    template = Row(
        study="finetune",
        params=params,
        flops=flops,
        compute=relative["full"],
        compute_published=relative["published"],
        depth=1.0,
        dataset=c.data.source,
        split=c.test_split,
        probe="finetune",
        metric="",
        value=None,
        seed=c.seed,
        **encoder.cut_fields(c.width, c.slim, c.ordering, c.recovery),
        **encoder.row_fields(epath.Path(_CHECKPOINT.value).name, settings),
    )
    return [
        dataclasses.replace(template, metric=metric, value=value, low=intervals[metric][0], high=intervals[metric][1])
        for metric, value in outcome.scores().items()
    ]


if __name__ == "__main__":
    cli.run(main)
