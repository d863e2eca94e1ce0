"""How long CKA of all states takes beside the forward passes alone.

    python -m tests.bench.similarity [--model=vit_b] [--depth=24] [--images=10] [--repeats=3]

Debiased and biased CKA, cosines and angles of all pairs of the `depth` + 1 states, of all tokens of images of 224
pixels, in batches of about a thousand rows; random weights. The sides take turns.
"""

import argparse
import dataclasses
import os
import statistics

import jax
import numpy as np

from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import images_at_once, measure
from scaling.models.variants import encoder
from scaling.training.config import TrainConfig
from tests.bench.cpu_turns import seconds


def run(model: str, depth: int, images: int, repeats: int) -> None:
    c = dataclasses.replace(encoder(model), depth=depth)
    e = random_weights(Encoder(c, None, TrainConfig()))
    size = images_at_once([e], "all")
    x = (
        np.random.default_rng(0)
        .normal(size=(max(images // size, 1) * size, *c.image_shape, c.bands))
        .astype(np.float32)
    )
    sides = {
        "forward": lambda: e.features(x, "tokens", batch_size=size, normalised=True),
        "similarity": lambda: measure([e], [[x]]),
    }
    for side in sides.values():
        side()
    turns = [[seconds(side) for side in sides.values()] for _ in range(repeats)]
    forward, both = (statistics.median(side) for side in zip(*turns, strict=True))
    print(f"{model}, depth {depth}, {c.tokens} tokens, batches of {size}: {len(x)} images, medians of {repeats}")
    print(
        f"forward passes {len(x) / forward:.2f} images/s, with the similarity of {depth + 1} states {len(x) / both:.2f}"
    )
    print(f"time with similarity / without: {statistics.median(b / a for a, b in turns):.2f}")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--model", default="vit_b")
    for name, default in {"depth": 24, "images": 10, "repeats": 3}.items():
        flags.add_argument(f"--{name}", type=int, default=default)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")
    run(**vars(flags.parse_args()))


if __name__ == "__main__":
    main()
