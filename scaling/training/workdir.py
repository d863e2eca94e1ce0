"""What a run says at its start, and what it writes to while it goes on."""

import json
import logging

import jax
from etils import epath

from scaling.compute import counting
from scaling.core.config import config_dict
from scaling.core.console import console
from scaling.core.files import write_whole
from scaling.data.config import held_out
from scaling.parallel import hosts
from scaling.training.config import RunConfig
from scaling.training.notes import notes
from scaling.training.state import bytes_per_device
from scaling.training.step import Trainer
from scaling.training.writers import JsonLines, ProgressBar, TensorBoard, WeightsAndBiases, Writer, wandb_id

log = logging.getLogger(__name__)

_MANY_EPOCHS = 4000  # ten times those of the longest published recipe here


def open_writers(c: RunConfig, workdir: epath.Path, start: int) -> list[Writer]:
    """Writes the configuration, and opens what takes the rows behind step `start`; nothing on hosts but the first."""
    if not hosts.is_first():
        return []
    run = wandb_id(workdir, _project(workdir, start) == c.wandb) if c.wandb else ""
    write_whole(workdir / "config.json", config_dict(c).to_json_best_effort(indent=2) + "\n")
    writers: list[Writer] = [JsonLines(workdir / "metrics.jsonl", start), TensorBoard(workdir, start)]
    if c.wandb:
        writers.append(WeightsAndBiases(c.wandb, workdir.name, run, config_dict(c).to_dict()))
    return [*writers, ProgressBar(c.steps, start)]


def _project(workdir: epath.Path, start: int) -> str:
    """The W&B project that a run went to until it saved the checkpoint of step `start`; empty for none."""
    file = workdir / "checkpoints" / str(start) / "config" / "metadata"
    return str(json.loads(file.read_text()).get("wandb", "")) if start else ""


def amount_of_data(c: RunConfig, images: int) -> str:
    """How many images there are and how often each is seen; warns if that is far more often than any recipe means."""
    kept = held_out(images, c.data)
    trained = images - kept
    epochs = c.steps * c.batch_size / trained
    if epochs > _MANY_EPOCHS:
        log.warning(
            f"data.split={c.data.split}: {c.steps:,} steps of {c.batch_size} are {epochs:,.0f} epochs of its "
            f"{trained:,} images; if this is not the whole set, name the rest in data.split, else set fewer steps"
        )
    return f"{c.data.source}, {trained:,} images{f' and {kept:,} held out' if kept else ''}; {epochs:,.1f} epochs"


def announce(c: RunConfig, trainer: Trainer, images: int, start: int) -> None:
    """Says once what is about to happen, and what of the configuration will not; `images` are all of the split, those
    that are held out among them.
    """
    if not hosts.is_first():
        return
    counts = counting.parameter_counts(trainer.names, trainer.abstract.params)
    others = [part for part in counting.components(counts) if part not in counting.ENCODER]
    parts = " + ".join(f"{counts[part]:,} {part}" for part in ("encoder", *others))
    per_image = trainer.flops_per_image()
    state = bytes_per_device(trainer.abstract, trainer.shardings)
    devices = ", ".join(f"{axis} {size}" for axis, size in trainer.mesh.shape.items())
    lines = [
        f"model   {parts} parameters, {trainer.config.dtype}",
        f"compute {per_image / 1e9:,.2f} GFLOP per image and training step (full convention)",
        f"mesh    {devices} on {jax.device_count()} x {jax.devices()[0].device_kind}",
        f"data    {amount_of_data(c, images)}",
        f"memory  {state / 2**30:.2f} GiB per device for parameters and optimizer",
        f"steps   {start:,} to {c.steps:,} of {c.batch_size} images, peak learning rate "
        f"{c.optimizer.base_lr * c.batch_size / 256:.3g}; compiling the first takes seconds to minutes",
    ]
    console().print("\n".join(lines))
    for note in notes(c):
        log.warning(note)
