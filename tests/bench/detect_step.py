"""Time of a training step of Oriented R-CNN on ViT-Ti by part: backbone, head, assignment, regions.

    python -m tests.bench.detect_step [--size=512] [--batch=2] [--objects=60] [--head=oriented_rcnn] [--repeats=5]

Published sizes, in float32: 256 channels, 2,000 proposals, 512 regions. The backbone is encoder and pyramid, forward
and backward; the step excludes the optimizer's update. Their difference is the head: its layers, forward and backward,
proposals and their suppression, assignment, rotated RoIAlign. The parts are timed separately, without work that they
could share. Seconds are processor seconds.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.boxes.convert import corners
from scaling.models.detector import DetectorNetwork
from scaling.models.heads import oriented_rcnn, oriented_rpn
from scaling.models.variants import encoder
from scaling.objectives.base import Inputs
from scaling.tasks.detection import Detecting, Detection

ROOM = 256


def batch_of(size: int, batch: int, objects: int) -> dict[str, np.ndarray]:
    """Noise with so many objects in each picture."""
    rng = np.random.default_rng(0)
    sides = np.sort(rng.uniform(8, 64, (batch, ROOM, 2)), axis=-1)[..., ::-1]
    boxes = np.concatenate(
        (rng.uniform(0, size, (batch, ROOM, 2)), sides, rng.uniform(-1.5, 1.5, (batch, ROOM, 1))), axis=-1
    )
    there = np.broadcast_to(np.arange(ROOM) < objects, (batch, ROOM))
    return {
        "image": rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        "boxes": np.where(there[..., None, None], corners(boxes), 0).astype(np.float32),
        "box_class": np.where(there, rng.integers(0, 15, (batch, ROOM)), -1).astype(np.int32),
        "box_difficult": np.zeros((batch, ROOM), bool),
        "box_valid": there,
        "box_overflow": np.zeros(batch, np.int32),
    }


def timed(name: str, function: Callable[..., Any], *given: Any, repeats: int) -> tuple[Any, float]:
    """The result of a function, and the processor seconds of the fastest of several calls, printed beside wall
    seconds: only the former are comparable if other programs run.
    """
    run, begun = jax.jit(function), time.process_time()
    result = jax.block_until_ready(run(*given))
    compiled, best = time.process_time() - begun, (math.inf, math.inf)
    for _ in range(repeats):
        before = time.process_time(), time.perf_counter()
        jax.block_until_ready(run(*given))
        best = min(best, (time.process_time() - before[0], time.perf_counter() - before[1]))
    print(f"{name:<40} {best[0]:7.2f} s, {best[1]:6.2f} by the clock; compiled in {compiled:3.0f} s", flush=True)
    return result, best[0]


def parts(task: Detection, params: Any, inputs: dict[str, Any], maps: list[jax.Array], repeats: int) -> None:
    """Times the parts of Oriented R-CNN."""
    c, p = task._c, params["head"]
    truth, keys = task._truth(inputs), inputs["keys"]

    def each(name: str, function: Callable[..., Any], *given: Any) -> Any:
        return timed(f"  {name}", function, *given, repeats=repeats)[0]

    said = each("convolutions everywhere, forward", oriented_rpn.everywhere, p, maps)
    found = each("proposals", lambda *x: oriented_rpn.proposals(c, *x), *said)
    taken, _ = each("anchors drawn", lambda *x: oriented_rpn.drawn(c, *x), truth, keys[:, 0])

    def at(p: Any, maps: Any) -> jax.Array:
        return sum((x**2).sum() for x in oriented_rpn.at(p, maps, taken.numbers))

    def told(p: Any, maps: Any) -> jax.Array:
        return sum((x**2).sum() for x in oriented_rcnn.told(p, c, maps, rois.boxes))

    each("convolutions at these, both ways", jax.grad(at, (0, 1)), p, maps)
    rois = each("regions drawn", lambda *x: oriented_rcnn.drawn(c, *x), *found, truth, keys[:, 1])
    each("regions read and told, both ways", jax.grad(told, (0, 1)), p, maps)
    each("detections", lambda p, maps: oriented_rcnn.oriented_rcnn_found(p, c, maps), p, maps)


def run(size: int, batch: int, objects: int, head: str, repeats: int) -> None:
    recipe = Detecting(head=head, classes=tuple(f"class {i}" for i in range(15)), most=ROOM)
    model = encoder("vit_ti", image_size=size, unroll=True)
    task = Detection(recipe, model, Inputs((128.0,) * 3, (74.0,) * 3, jnp.float32))
    params = jax.jit(task.init)(0)
    inputs = jax.jit(lambda batch: task.inputs(0, jnp.int32(0), batch))(batch_of(size, batch, objects))
    network = DetectorNetwork(task._c, jnp.float32)

    def loss(params: Any, inputs: dict[str, Any]) -> jax.Array:
        return task.loss(params, {}, inputs)[0]

    def backbone(params: Any, inputs: dict[str, Any]) -> jax.Array:
        return sum((x**2).sum() for x in network.apply({"params": params}, inputs["image"] / 128.0 - 1))

    _, step = timed("step", jax.grad(loss), params, inputs, repeats=repeats)
    _, below = timed("backbone", jax.grad(backbone), params, inputs, repeats=repeats)
    print(f"{'head':<40} {step - below:7.2f} s, {(step - below) / below:.2f} of the backbone", flush=True)
    if head == "oriented_rcnn":
        parts(task, params, inputs, jax.jit(task._maps)(params, inputs["image"]), repeats)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 512), ("batch", 2), ("objects", 60), ("repeats", 5)):
        flags.add_argument(f"--{name}", type=int, default=default)
    flags.add_argument("--head", default="oriented_rcnn")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}")
    run(**vars(flags.parse_args()))


if __name__ == "__main__":
    main()
