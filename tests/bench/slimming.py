"""Measured cost of cut encoders beside that predicted by their operations.

    python -m tests.bench.slimming [--repeats=5] [--sweep]

ViT-B/16 at 224 pixels, batch 32, random weights, cut as published: the time of the blocks (that of the stem is measured
alone and subtracted) at s = 0.25 and 0.1, beside the full encoder's time x relative compute (`full` convention). The
encoders take turns; medians of several. `--sweep`: a k-NN sweep of ViT-S/8 over the 31 published widths and 2,000
scenes of 64 pixels, beside the time of its operations at the full encoder's rate, and how many programs it compiled.
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import monitoring

from scaling.compute.counting import flops, whole_image
from scaling.data.config import DataConfig
from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.encoders.slimmed import slim
from scaling.models.config import ViTConfig
from scaling.models.variants import encoder
from scaling.models.vit import ViT, abstract_vit, stem
from scaling.studies.grid import Grid
from scaling.studies.journal import Journal
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.studies.slimming.run import complete, study_jobs
from scaling.training.config import TrainConfig
from tests.bench.cpu_turns import seconds

BATCH = 32
WIDTHS = (1.0, 0.25, 0.1)


def drawn(c: ViTConfig) -> Encoder:
    """An encoder with its first weights, for colours between 0 and 255."""
    data = DataConfig(mean=(100.0,) * c.bands, std=(50.0,) * c.bands)
    return random_weights(Encoder(c, None, TrainConfig(data=data)))


def operations(c: ViTConfig) -> tuple[int, int]:
    """Operations of one image in the blocks and in the stem, `full` convention."""
    shapes, names = abstract_vit(c)
    counts = flops(names, shapes, whole_image(c))["full"]
    return counts["encoder"] - counts["stem"], counts["stem"]


def cut_times(repeats: int) -> None:
    full = drawn(encoder("vit_b"))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 224, 224, 3)), jnp.float32)
    cut = {s: slim(full, s) for s in WIDTHS}
    encode = {s: functools.partial(jax.jit(ViT(e.config).apply), {"params": e.params}, images) for s, e in cut.items()}
    embed = functools.partial(jax.jit(functools.partial(stem, c=full.config)), full.params, images)
    turns = {**encode, "stem": embed}
    times = [{name: seconds(function) for name, function in turns.items()} for _ in range(repeats + 1)][1:]
    median = {name: statistics.median(turn[name] for turn in times) for name in turns}
    blocks = {s: median[s] - median["stem"] for s in WIDTHS}
    whole, _ = operations(full.config)
    print(f"ViT-B/16, 224 px, batch {BATCH}; stem {median['stem']:.3f} s")
    for s, e in cut.items():
        relative = operations(e.config)[0] / whole
        print(
            f"s = {s:<5g} blocks {blocks[s]:7.3f} s  compute {relative:.4f}  "
            f"time / (full time x compute) {blocks[s] / (blocks[1.0] * relative):.2f}"
        )


def sweep_time() -> None:
    full = drawn(encoder("vit_s", image_size=64, patch_size=8))
    images, compiled = 2000, []
    monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(duration) if event.endswith("backend_compile_duration") else None
    )
    dataset = DatasetConfig(source="scenes?size=64&count=1000")
    c = SlimmingStudyConfig(datasets={"scenes": dataset}, controls=())
    batch = np.random.default_rng(0).normal(size=(images // 4, 64, 64, 3)).astype(np.float32)
    full.features(batch, normalised=True)
    rate = statistics.median(seconds(lambda: full.features(batch, normalised=True)) for _ in range(3)) / len(
        batch
    )  # s per image
    compiled.clear()
    about = {"model": "vit_s", "objective": "none", "config_hash": "bench"}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Journal(Path(folder), complete=complete).open() as journal:
            Grid(study_jobs(full, c, about), journal).run()
        took = time.perf_counter() - began
        rows = {row.width_ratio: row.compute for row in journal.rows}
    needed = rate * images * sum(rows.values())
    print(f"ViT-S/8, 64 px, {images} images, {len(rows)} widths: {took:.0f} s, of it compiling {sum(compiled):.0f} s")
    print(f"{len(compiled)} programs; operations at the full encoder's rate {needed:.0f} s; ratio {took / needed:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="time a sweep of 31 widths too: minutes")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")
    cut_times(arguments.repeats)
    if arguments.sweep:
        sweep_time()


if __name__ == "__main__":
    main()
