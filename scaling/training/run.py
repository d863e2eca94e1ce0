"""One pretraining run, from a configuration to a working directory with its last checkpoint."""

import contextlib
import dataclasses
import logging
from collections.abc import Collection

import jax
from etils import epath
from jax.sharding import Mesh

from scaling.core.paths import check_folder
from scaling.data.config import check_source, open_sources
from scaling.data.statistics import band_statistics
from scaling.parallel import hosts
from scaling.parallel.claim import Claim
from scaling.parallel.mesh import check_batch, make_mesh
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import TrainConfig, step_config
from scaling.training.loop import Run, panel_path
from scaling.training.loss_curve import loss_curve
from scaling.training.resume import check_same, restore_newest
from scaling.training.step import Trainer
from scaling.training.workdir import announce, open_writers
from scaling.training.writers import read_metrics

log = logging.getLogger(__name__)


def train(c: TrainConfig, workdir: epath.Path, change: Collection[str] = ()) -> int:
    """Runs a configuration in a working directory. Returns the exit code; that of a
    signal also where it came in the last step, for those who would go on with something else.

    Args:
      c: the configuration.
      workdir: where the run is kept, and resumed from.
      change: fields that may differ from those the run was begun with, beside `scaling.training.resume.FREE`.

    Raises:
      UserError: wrong input, a working directory of another run, or one that another process trains in.
    """
    c = c.resolved()
    mesh = make_mesh(c.mesh)
    check_batch(c.batch_size, mesh.devices.shape, c.accumulate)
    check_folder("workdir", workdir, checkpoints=True)
    with Claim(workdir) as claim:
        return _train(c, mesh, workdir, claim, change)


def _train(c: TrainConfig, mesh: Mesh, workdir: epath.Path, claim: Claim, change: Collection[str]) -> int:
    source, held_out = open_sources(c.data)
    for each in (source,) if held_out is source else (source, held_out):
        check_source(each, c.model.bands, c.data)
    mean, std = band_statistics(source, c.data)
    c = dataclasses.replace(c, data=dataclasses.replace(c.data, mean=mean, std=std))
    checkpoints = Checkpoints(workdir, c.checkpoint)
    found = checkpoints.newest()
    if found is not None:
        check_same(c, checkpoints.config(found), found, workdir, change)
    trainer = Trainer(step_config(c, jax.default_backend()), mesh)
    state = trainer.init() if found is None else restore_newest(checkpoints, trainer, found)
    start = int(state.step)  # what cannot be read is found out by reading it, also where training is finished
    if start >= c.steps:
        checkpoints.close()
        log.info("%s is finished: it was trained for %s steps; nothing is left to do", workdir, f"{start:,}")
        _summarise(workdir)
        return 0
    announce(c, trainer, len(source), start)
    writers = open_writers(c, workdir, start)
    with contextlib.ExitStack() as closing:  # each of them, also where another has no room for its rest
        closing.callback(checkpoints.close)
        for writer in writers:
            closing.callback(writer.close)
        last = Run(c, trainer, source, held_out, checkpoints, writers, workdir, claim).train(state)
    if last is None:
        return hosts.stopped("training was")
    _summarise(workdir)
    return 0


def _summarise(workdir: epath.Path) -> None:
    """Says what came of the run: where the loss began and ended, and where the pictures are."""
    if not hosts.is_first():
        return
    file = workdir / "metrics.jsonl"
    rows = [row for row in read_metrics(file) if isinstance(row.get("loss"), float)] if file.is_file() else []
    if not rows:
        print(f"there are no rows in {file}: the course of the loss is not known")
        return
    first, *others = (f"{row['loss']:.4f} at step {row['step']:,}" for row in rows)
    print(f"loss     {first}{f' to {others[-1]}' if others else ', the only row: it says no course'}")
    held_out = [f"{row['eval_loss']:.4f}" for row in rows if isinstance(row.get("eval_loss"), float)]
    course = " to ".join([held_out[0], *held_out[1:][-1:]]) if held_out else "not measured"
    print(f"held out {course}; all rows in {file}")
    loss_curve(workdir / "figures" / "loss.png", rows)
    if (picture := panel_path(workdir, rows[-1]["step"])).exists():
        print(f"picture  {picture}")
