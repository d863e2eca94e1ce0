"""Pretrains a masked autoencoder, on one CPU or a pod.

    python -m scaling.train --config=vit_h.py --workdir=DIR [--config.path.to.field=value ...]

A bare config name is looked up in `configs/`. Starting the same command again goes on from the newest checkpoint of the
working directory, on any mesh and number of hosts, with the same losses to the last bit on the same devices.

The working directory (a bucket `gs://...` too) holds `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and
`figures/`. Several hosts: start the command on each of them with `--coordinator=auto` on Cloud TPU, or with
`--coordinator=HOST:PORT --processes=N --process=K`.
"""

import dataclasses
import json
import logging

import jax
from absl import flags
from etils import epath
from ml_collections import config_flags
from rich.console import Console

from scaling import cli
from scaling.analysis import compute
from scaling.analysis.figures import loss_curve
from scaling.config import config_dict, from_config_dict
from scaling.data.config import check_source, open_sources
from scaling.data.statistics import band_statistics
from scaling.errors import UserError
from scaling.parallel import hosts
from scaling.parallel.mesh import check_batch, make_mesh
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import TrainConfig
from scaling.training.loop import Run, panel_path
from scaling.training.metrics import JsonLines, ProgressBar, TensorBoard, WeightsAndBiases, Writer
from scaling.training.state import bytes_per_device
from scaling.training.step import Trainer, step_config

log = logging.getLogger(__name__)

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, by path or by bare name.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept; goes on from its newest checkpoint.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, `auto`, or empty for one process.")
_PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes, with --coordinator=host:port.")
_PROCESS = flags.DEFINE_integer("process", 0, "Which of them this is.")
_TIMEOUT = flags.DEFINE_integer("timeout", 300, "Seconds to wait for the other processes.")


def main(argv: list[str]) -> int:
    del argv
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise UserError("give --config=FILE and --workdir=DIR")
    config = from_config_dict(TrainConfig, _CONFIG.value)
    config.check()
    hosts.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _TIMEOUT.value)
    return train(config, epath.Path(_WORKDIR.value))


def train(c: TrainConfig, workdir: epath.Path) -> int:
    """Runs a configuration in a working directory. Returns the exit code."""
    mesh = make_mesh(c.mesh)
    check_batch(c.batch_size, mesh, c.accumulate)
    _check_writable(workdir)
    source, held_out = open_sources(c.data)
    for each in (source,) if held_out is source else (source, held_out):
        check_source(each, c.model.bands, c.data)
    mean, std = band_statistics(source, c.data)
    c = dataclasses.replace(c, data=dataclasses.replace(c.data, mean=mean, std=std))
    trainer = Trainer(step_config(c, jax.default_backend()), mesh)
    checkpoints = Checkpoints(workdir, c.checkpoint)
    start = checkpoints.latest() or 0
    _announce(c, trainer, len(source), start)
    state = checkpoints.restore(start, trainer.abstract, trainer.shardings, trainer.names) if start else trainer.init()
    writers = []
    if hosts.is_first():
        (workdir / "config.json").write_text(config_dict(c).to_json_best_effort(indent=2) + "\n")
        writers = _writers(c, workdir, start)
    try:
        done = Run(c, trainer, source, held_out, checkpoints, writers, workdir).train(state)
    finally:
        for writer in writers:
            writer.close()
        checkpoints.close()
    if not done:
        log.info("stopped by SIGTERM after saving; the same command goes on")
        return hosts.STOPPED
    if hosts.is_first():
        _summarise(workdir)
    return 0


def _check_writable(workdir: epath.Path) -> None:
    probe = workdir / f".writable-{jax.process_index()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise UserError(f"--workdir={workdir} cannot be written to ({e.strerror}); choose another one") from e


def _summarise(workdir: epath.Path) -> None:
    """Says what came of the run: where the loss began and ended, and where the pictures are."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]
    held_out = [row["eval_loss"] for row in rows if "eval_loss" in row]
    print(f"loss     {first['loss']:.4f} at step {first['step']:,} to {last['loss']:.4f} at step {last['step']:,}")
    print(f"held out {held_out[0]:.4f} to {held_out[-1]:.4f}; all rows in {workdir / 'metrics.jsonl'}")
    loss_curve(workdir / "figures" / "loss.png", rows)
    print(f"picture  {panel_path(workdir, last['step'])}")


def _writers(c: TrainConfig, workdir: epath.Path, start: int) -> list[Writer]:
    writers: list[Writer] = [JsonLines(workdir / "metrics.jsonl", start), TensorBoard(workdir, start)]
    if c.wandb:
        writers.append(WeightsAndBiases(c.wandb, workdir, config_dict(c).to_dict()))
    return [*writers, ProgressBar(c.steps, start)]


def _announce(c: TrainConfig, trainer: Trainer, images: int, start: int) -> None:
    """Says once what is about to happen."""
    if not hosts.is_first():
        return
    t = trainer.config
    counts = compute.parameter_counts(trainer.names, trainer.abstract.params)
    per_image = compute.training_flops(trainer.names, trainer.abstract.params, c.model)
    state = bytes_per_device(trainer.abstract, trainer.shardings)
    devices = ", ".join(f"{axis} {size}" for axis, size in trainer.mesh.shape.items())
    lines = [
        f"model   {counts['encoder']:,} encoder + {counts['decoder']:,} decoder parameters, {t.dtype}",
        f"compute {per_image / 1e9:,.2f} GFLOP per image and training step (full convention)",
        f"mesh    {devices} on {jax.device_count()} x {jax.devices()[0].device_kind}",
        f"data    {c.data.source}, {images:,} images; {c.steps * c.batch_size / images:,.1f} epochs",
        f"memory  {state / 2**30:.2f} GiB per device for parameters and optimizer",
        f"steps   {start:,} to {c.steps:,} of {c.batch_size} images, peak learning rate "
        f"{c.optimizer.base_lr * c.batch_size / 256:.3g}",
    ]
    Console(highlight=False).print("\n".join(lines))


if __name__ == "__main__":
    cli.run(main)
