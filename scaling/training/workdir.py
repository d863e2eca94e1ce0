"""The messages of a run at its start and end, and the writers of its log."""

import json
import logging
from typing import Any

import jax
from etils import epath

from scaling.compute import counting
from scaling.compute.hardware import CHIPS
from scaling.core.config import config_dict
from scaling.core.console import console
from scaling.core.files import in_bucket, write_whole
from scaling.data.config import held_out
from scaling.parallel import hosts
from scaling.training.background import InBackground
from scaling.training.best import best_of
from scaling.training.config import RunConfig
from scaling.training.goodput import STARTS, goodput, note_start, read_starts
from scaling.training.loop import panel_path
from scaling.training.notes import notes
from scaling.training.state import bytes_per_device
from scaling.training.step import TrainStep
from scaling.training.writers import (
    JsonLines,
    ProgressBar,
    TensorBoard,
    WeightsAndBiases,
    Writer,
    read_metrics,
    wandb_id,
)

log = logging.getLogger(__name__)

_MANY_EPOCHS = 4000  # ten times that of the longest published recipe here


def open_writers(c: RunConfig, workdir: epath.Path, start: int) -> list[Writer]:
    """Writes the configuration, and opens the writers of rows after step `start`; none on hosts other than the
    first.
    """
    if not hosts.is_first():
        return []
    run = wandb_id(workdir, _project(workdir, start) == c.wandb) if c.wandb else ""
    write_whole(workdir / "config.json", config_dict(c).to_json_best_effort(indent=2) + "\n")
    metrics = workdir / "metrics.jsonl"
    note_start(workdir, read_metrics(metrics) if metrics.exists() else [], start)
    writers: list[Writer] = [JsonLines(workdir / "metrics.jsonl", start), TensorBoard(workdir, start)]
    if in_bucket(workdir):
        writers = [InBackground(writer) for writer in writers]
    if c.wandb:
        writers.append(WeightsAndBiases(c.wandb, workdir.name, run, config_dict(c).to_dict()))
    return writers


def _project(workdir: epath.Path, start: int) -> str:
    """The W&B project that a run logged to until it saved the checkpoint of step `start`; empty for none."""
    file = workdir / "checkpoints" / str(start) / "config" / "metadata"
    return str(json.loads(file.read_text()).get("wandb", "")) if start else ""


def amount_of_data(c: RunConfig, images: int) -> str:
    """The number of images and of epochs, in words; warns of far more epochs than any recipe has."""
    kept = held_out(images, c.data)
    trained = images - kept
    epochs = c.steps * c.batch_size / trained
    if epochs > _MANY_EPOCHS:
        log.warning(
            f"data.split={c.data.split}: {c.steps:,} steps of {c.batch_size} are {epochs:,.0f} epochs of its "
            f"{trained:,} images; if this is not the whole data set, add the rest to data.split; otherwise set fewer "
            "steps"
        )
    built_in = c.data.source.partition("?")[0].partition(":")[0] == "scenes"
    own = " (rendered, built in; data.source=folder:DIR is for your own)" if built_in else ""
    return f"{c.data.source}{own}, {trained:,} images{f' and {kept:,} held out' if kept else ''}; {epochs:,.1f} epochs"


def nowhere(c: RunConfig, train_step: TrainStep, images: int, workdir: epath.Path, start: int) -> list[Writer]:
    """A `Watch` without writers."""
    return []


def in_files(c: RunConfig, train_step: TrainStep, images: int, workdir: epath.Path, start: int) -> list[Writer]:
    """A `Watch` that writes the configuration and the rows to the working directory, and to W&B if configured.
    Settings without effect are logged.
    """
    for note in notes(c, images) if hosts.is_first() else ():
        log.warning(note)
    return open_writers(c, workdir, start)


def announced(c: RunConfig, train_step: TrainStep, images: int, workdir: epath.Path, start: int) -> list[Writer]:
    """A `Watch` that announces the run and its settings without effect; nothing is written."""
    if hosts.is_first():
        announce(c, train_step, images, start)
        for note in notes(c, images):
            log.warning(note)
    return []


def on_screen(c: RunConfig, train_step: TrainStep, images: int, workdir: epath.Path, start: int) -> list[Writer]:
    """A `Watch` that announces the run and shows a progress bar, in addition to `in_files`."""
    if not hosts.is_first():
        return []
    announce(c, train_step, images, start)
    return [*in_files(c, train_step, images, workdir, start), ProgressBar(c.steps, start)]


def announce(c: RunConfig, train_step: TrainStep, images: int, start: int) -> None:
    """Prints the plan of a run; `images` counts the whole split, including held-out images."""
    counts = counting.parameter_counts(train_step.names, train_step.abstract.params)
    others = [part for part in counting.components(counts) if part not in counting.ENCODER]
    parts = " + ".join(f"{counts[part]:,} {part}" for part in ("encoder", *others))
    per_image = train_step.flops_per_image()
    state = bytes_per_device(train_step.abstract, train_step.shardings)
    devices = ", ".join(f"{axis} {size}" for axis, size in train_step.mesh.shape.items())
    lines = [
        f"model   {parts} parameters, {train_step.config.dtype}",
        f"compute {per_image / 1e9:,.2f} GFLOP per image and training step (full convention)",
        f"mesh    {devices} on {jax.device_count()} x {jax.devices()[0].device_kind}",
        f"data    {amount_of_data(c, images)}",
        f"memory  {amount_of_memory(state)}",
        f"steps   {start:,} to {c.steps:,} of {c.batch_size} images, peak learning rate "
        f"{c.optimizer.base_lr * c.batch_size / 256:.3g}; compiling the first takes seconds to minutes",
    ]
    console().print("\n".join(lines))


def amount_of_memory(held: int) -> str:
    """Bytes of parameters and optimizer state per device, in words, and the memory of the device if it is known."""
    said = f"{held / 2**30:.2f} GiB per device for parameters and optimizer"
    chip = CHIPS.get(jax.devices()[0].device_kind)
    if not chip:
        return said
    over = "" if held < chip.memory else ": they do not fit; split them over more devices"
    return f"{said}, of {chip.memory / 2**30:.0f}{over}"


def losses(workdir: epath.Path) -> list[dict[str, Any]]:
    """The rows of a working directory that have a loss, in order."""
    file = workdir / "metrics.jsonl"
    return [row for row in read_metrics(file) if isinstance(row.get("loss"), float)] if file.is_file() else []


def course(workdir: epath.Path) -> str:
    """The result of a run, in lines: first and last loss, and the paths of the pictures."""
    rows, file = losses(workdir), workdir / "metrics.jsonl"
    if not rows:
        return f"there are no rows in {file}: the course of the loss is not known"
    first, *others = (f"{row['loss']:.4f} at step {row['step']:,}" for row in rows)
    held_out = [f"{row['eval_loss']:.4f}" for row in rows if isinstance(row.get("eval_loss"), float)]
    way = " to ".join([held_out[0], *held_out[1:][-1:]]) if held_out else "not measured"
    lines = [
        f"loss     {first}{f' to {others[-1]}' if others else ', the only row: it says no course'}",
        f"held out {way}; all rows in {file}",
    ]
    starts, config = workdir / STARTS, workdir / "config.json"
    if starts.exists() and config.exists():
        size = json.loads(config.read_text())["batch_size"]
        lines += [str(found)] if (found := goodput(read_starts(starts.read_text()), rows, size)) else []
    if best := best_of(workdir):
        lines.append(f"best     {best}")
    if (picture := panel_path(workdir, rows[-1]["step"])).exists():
        lines.append(f"picture  {picture}")
    return "\n".join(lines)
