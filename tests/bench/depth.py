"""Whether depth pruning is real: 24 and 5 blocks of the shape of Prithvi-EO-2.0 300M, side by side.

    python -m tests.bench.depth [--keep=5] [--batches=1,32] [--step_batch=4] [--repeats=3]

Random weights, 6 bands at 224 pixels, float32. Inference is images to features; a fine-tuning step is the gradient of
the cross-entropy of a linear layer of 15 classes on the mean of the patches, through all of the encoder, and AdamW. The
encoders take turns. The ratio of operations is given beside those of seconds (processor seconds, which are comparable
even if other programs run); SIMPLER (2603.19873) publishes 2.6 for inference and 2.1 for training.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling.compute.counting import encoder_cost
from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.encoders.pruned import prune
from scaling.models.config import ViTConfig
from scaling.models.variants import PUBLIC, Architecture
from scaling.models.vit import POOLS, ViT
from scaling.training.config import TrainConfig
from tests.bench.cpu_turns import Step, alternate

CLASSES = 15  # of MADOS, on which the published numbers are


def features(params: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    return POOLS["mean"](ViT(c).apply({"params": params}, images), c)  # type: ignore[arg-type]


def inference(e: Encoder, images: jax.Array) -> Step:
    run = jax.jit(functools.partial(features, c=e.config))
    return lambda: float(run(e.params, images)[0, 0])


def finetuning(e: Encoder, images: jax.Array) -> Step:
    """A fine-tuning step on fixed images; every call is one update."""
    labels = jnp.arange(len(images)) % CLASSES
    optimizer = optax.adamw(1e-4)
    params = {"encoder": e.params, "head": jnp.zeros((e.config.width, CLASSES))}

    def loss(params: Any) -> jax.Array:
        logits = features(params["encoder"], images, e.config) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(params)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, value

    now = [jax.tree.map(jnp.array, params), optimizer.init(params)]

    def step() -> float:
        *now[:], value = update(*now)
        return float(value)

    return step


def compare(name: str, sides: dict[str, Callable[[], Step]], operations: float, repeats: int) -> None:
    seconds = alternate({side: make() for side, make in sides.items()}, repeats)
    wall, cpu = ({side: min(pair[i] for pair in pairs) for side, pairs in seconds.items()} for i in (0, 1))
    full, small = sides
    ratio = cpu[full] / cpu[small]
    print(
        f"{name:<26}{cpu[full]:9.2f}{cpu[small]:9.2f}{ratio:9.2f}{wall[full] / wall[small]:9.2f}{operations:12.2f}"
        f"{operations / ratio:12.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--step_batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    c = PUBLIC["prithvi_eo_v2_300"].config
    full = random_weights(Encoder(c, None, TrainConfig(model=c)))
    small = prune(full, range(arguments.keep))
    params, _, relative = encoder_cost(Architecture(c), small.config)
    operations = 1 / relative["full"]
    decoder = (c.width + 1) * CLASSES
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")
    print(f"{arguments.keep} of {c.depth} blocks: {params + decoder:,} parameters with the decoder")
    print(f"{'':26}{'full s':>9}{'cut s':>9}{'ratio':>9}{'by clock':>9}{'operations':>12}{'of these':>12}")
    random = np.random.default_rng(0)
    for batch in map(int, arguments.batches.split(",")):
        images = jnp.asarray(random.normal(size=(batch, *c.image_shape, c.bands)), jnp.float32)
        sides = {name: functools.partial(inference, e, images) for name, e in (("full", full), ("cut", small))}
        compare(f"inference, batch {batch}", sides, operations, arguments.repeats)
    images = jnp.asarray(random.normal(size=(arguments.step_batch, *c.image_shape, c.bands)), jnp.float32)
    sides = {name: functools.partial(finetuning, e, images) for name, e in (("full", full), ("cut", small))}
    compare(f"fine-tuning, batch {arguments.step_batch}", sides, operations, arguments.repeats)


if __name__ == "__main__":
    main()
