"""Speed and memory of predicting a large image through windows, relative to as many bare forward passes.

    python -m tests.bench.windows [--width=6000] [--height=6000] [--size=256] [--batch=8] [--channels=64] [--repeats=5]

UperNet on ViT-Ti with random weights, windows that begin every three quarters of one. The sides take turns on strips of
five rows of windows; then the whole image is predicted once, and its rows are dropped as they come.
"""

import argparse
import os
import resource
import statistics
from typing import Any

import jax
import numpy as np

from scaling.evaluation.windows import Forward, Windows, likeliest, reader
from scaling.models.variants import encoder
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.tasks.pixels import forward_of
from scaling.tasks.segmentation import Segmenting
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.step import TrainStep
from tests.bench.cpu_turns import seconds

CLASSES = ("impervious", "building", "low vegetation", "tree", "car", "clutter")
ROWS = 5  # of windows, in a turn


def network(size: int, batch: int, channels: int) -> Forward:
    """Pixels [batch, size, size, 3] to logits of every pixel."""
    task = Segmenting(classes=CLASSES, channels=channels, auxiliary_channels=32)
    normal = {"mean": (128.0,) * 3, "std": (74.0,) * 3}
    model, optimizer = encoder("vit_ti", image_size=size), OptimizerConfig(warmup=0)
    config = StepConfig(model, task, optimizer, MeshConfig(), 0, steps=1, batch_size=batch, dtype="float32", **normal)
    train_step = TrainStep(config, make_mesh(config.mesh))
    objective: Any = train_step.objective
    return forward_of(train_step, objective.pixel_logits, train_step.init(), train_step.shardings)


def tell(image: np.ndarray, forward: Forward, windows: Windows) -> None:
    """Predicts all classes of an image and keeps none."""
    for _, rows in windows.logits_by_rows(reader(image), *image.shape[:2], forward):
        likeliest(rows)


def pure(image: np.ndarray, forward: Forward, windows: Windows) -> None:
    """The same number of forward passes on one batch; waits for the logits only at the end."""
    pixels = np.broadcast_to(image[: windows.size[0], : windows.size[1]], (windows.batch, *windows.size, 3)).copy()
    logits = None
    for _ in range(-(-len(windows.places(*image.shape[:2])) // windows.batch)):
        logits = forward(pixels)
    jax.block_until_ready(logits)


def run(width: int, height: int, size: int, batch: int, channels: int, repeats: int) -> None:
    stride = size * 3 // 4
    windows, forward = Windows((size, size), (stride, stride), batch), network(size, batch, channels)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    strip = image[: size + (ROWS - 1) * stride]
    pure(image[:size, :size], forward, windows)  # compiled
    turns = [[seconds(side, strip, forward, windows) for side in (pure, tell)] for _ in range(repeats)]
    apart, whole = (statistics.median(side) for side in zip(*turns, strict=True))
    number = len(windows.places(*strip.shape[:2]))
    print(
        f"strips of {number} windows: forward passes {number / apart:.2f} windows/s, "
        f"prediction {number / whole:.2f} windows/s"
    )
    print(f"prediction / forward passes, median of {repeats}: {statistics.median(a / b for a, b in turns):.3f}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    took, number = seconds(tell, image, forward, windows), len(windows.places(height, width))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{width} x {height}: {number} windows in {took:.0f} s, {number / took:.2f} windows/s")
    print(f"resident memory at most {peak:,.0f} MiB ({before:,.0f} before it; the image itself {image.nbytes >> 20:,})")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"width": 6000, "height": 6000, "size": 256, "batch": 8, "channels": 64, "repeats": 5}
    for name, default in defaults.items():
        flags.add_argument(f"--{name}", type=int, default=default)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")
    run(**vars(flags.parse_args()))


if __name__ == "__main__":
    main()
