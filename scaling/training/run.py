"""One pretraining run, from a configuration to a working directory with its last checkpoint."""

import dataclasses
import json
import logging

import jax
from etils import epath

from scaling.analysis.figures import loss_curve
from scaling.data.config import check_source, open_sources
from scaling.data.statistics import band_statistics
from scaling.parallel import hosts
from scaling.parallel.mesh import check_batch, make_mesh
from scaling.paths import check_folder
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import TrainConfig, step_config
from scaling.training.loop import Run, panel_path
from scaling.training.step import Trainer
from scaling.training.workdir import announce, open_writers

log = logging.getLogger(__name__)


def train(c: TrainConfig, workdir: epath.Path) -> int:
    """Runs a configuration in a working directory. Returns the exit code."""
    c = c.resolved()
    mesh = make_mesh(c.mesh)
    check_batch(c.batch_size, mesh.devices.shape, c.accumulate)
    check_folder("workdir", workdir)
    source, held_out = open_sources(c.data)
    for each in (source,) if held_out is source else (source, held_out):
        check_source(each, c.model.bands, c.data)
    mean, std = band_statistics(source, c.data)
    c = dataclasses.replace(c, data=dataclasses.replace(c.data, mean=mean, std=std))
    trainer = Trainer(step_config(c, jax.default_backend()), mesh)
    checkpoints = Checkpoints(workdir, c.checkpoint)
    start = checkpoints.latest() or 0
    announce(c, trainer, len(source), start)
    state = checkpoints.restore(start, trainer.abstract, trainer.shardings, trainer.names) if start else trainer.init()
    writers = open_writers(c, workdir, start)
    try:
        last = Run(c, trainer, source, held_out, checkpoints, writers, workdir).train(state)
    finally:
        for writer in writers:
            writer.close()
        checkpoints.close()
    if last is None:
        log.info("stopped by SIGTERM after saving; the same command goes on")
        return hosts.STOPPED
    if hosts.is_first():
        _summarise(workdir)
    return 0


def _summarise(workdir: epath.Path) -> None:
    """Says what came of the run: where the loss began and ended, and where the pictures are."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    held_out = [row["eval_loss"] for row in rows if "eval_loss" in row]
    print(f"loss     {first['loss']:.4f} at step {first['step']:,} to {last['loss']:.4f} at step {last['step']:,}")
    evaluated = f"{held_out[0]:.4f} to {held_out[-1]:.4f}" if held_out else "no image was readable"
    print(f"held out {evaluated}; all rows in {workdir / 'metrics.jsonl'}")
    loss_curve(workdir / "figures" / "loss.png", rows)
    print(f"picture  {panel_path(workdir, last['step'])}")
