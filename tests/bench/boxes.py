"""How fast the geometry of oriented boxes is here, in pairs and boxes a second.

python -m tests.bench.boxes
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from scaling.boxes.align import pyramid_levels, rotated_roi_align
from scaling.boxes.convert import corners
from scaling.boxes.overlap import rotated_iou
from scaling.boxes.polygons import polygon_iou
from scaling.boxes.suppress import rotated_nms
from scaling.evaluation.detection import DetectionTotals
from tests.boxes.examples import random_boxes
from tests.evaluation.test_detection import scattered

STRIDES = (4, 8, 16, 32)


def best_seconds(run, *given, repeats: int = 5) -> float:
    """Seconds of the fastest run, the first not counted."""
    jax.block_until_ready(run(*given))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(run(*given))
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


@jax.jit
def align(maps, boxes):
    return rotated_roi_align(maps, STRIDES, boxes, pyramid_levels(boxes, len(STRIDES)))


def read(maps, boxes):
    return (align(maps, boxes) ** 2).sum()


def main() -> None:
    pairs = 1_000_000
    a, b = (random_boxes(pairs, seed).astype(np.float32) for seed in (0, 1))
    overlap = jax.jit(rotated_iou)
    on_device = jnp.asarray(a), jnp.asarray(b)
    print(f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s)")
    print(f"rotated_iou, float32: {pairs / best_seconds(overlap, *on_device) / 1e6:.2f} million pairs/s")
    few = [corners(boxes[:100_000].astype(np.float64)) for boxes in (a, b)]
    print(f"polygon_iou, float64: {100_000 / best_seconds(polygon_iou, *few) / 1e6:.2f} million pairs/s")
    for count in (2000, 10_000):
        boxes = jnp.asarray(random_boxes(count, spread=400).astype(np.float32))
        scores = jnp.asarray(np.random.default_rng(0).random(count, np.float32))
        nms = jax.jit(functools.partial(rotated_nms, threshold=0.1, keep=2000))
        kept = int(nms(boxes, scores)[1].sum())
        print(f"rotated_nms of {count:,} boxes, {kept:,} kept: {best_seconds(nms, boxes, scores):.3f} s")
    maps = [jnp.ones((512 // stride, 512 // stride, 256)) for stride in STRIDES]
    boxes = jnp.asarray(random_boxes(512, sides=(10, 300), at=256).astype(np.float32))
    print(f"rotated_roi_align of 512 boxes of 256 channels: {best_seconds(align, maps, boxes):.3f} s")
    print(f"with its gradient: {best_seconds(jax.jit(jax.grad(read)), maps, boxes):.3f} s")
    detections, truths = 100_000, 20_000
    found, there = scattered(images=400, truths=truths, detections=detections, size=4000)
    begun = time.perf_counter()
    totals = DetectionTotals({"ship": found}, {"ship": there}, 400)
    totals.scores()
    scored = time.perf_counter()
    totals.intervals()
    print(
        f"scores of {detections:,} detections beside {truths:,} truths: {scored - begun:.2f} s, "
        f"their intervals: {time.perf_counter() - scored:.1f} s"
    )


if __name__ == "__main__":
    main()
