"""Counts, class by class, the objects of a split that a detector can learn from, without training.

    PYTHONPATH=. python results/detection/assigned.py --source='dota:DIR?tile=256&gap=51' --size=256 --patch=8

For every anchor size: the objects of the split at the size of the model's images, the median of their sides, of their
best overlap with an anchor that is inside the image, the share with at least one positive anchor, and the mean number
of these. `--head=rotated_retinanet` does the same for its anchors, which are not limited to the inside.
"""

import argparse
from functools import partial

import jax
import numpy as np

from scaling.boxes.assign import assign
from scaling.boxes.convert import corners, from_quadrilaterals, hulls
from scaling.boxes.overlap import rotated_iou, upright_iou
from scaling.data.sources.registry import open_source
from scaling.models.detector import DetectorConfig
from scaling.models.heads import oriented_rpn, rotated_retinanet

_ROOM = 64  # objects whose best overlaps are computed together


def oriented_rcnn(c):
    grid = oriented_rpn.grid(c)
    return grid.anchors, grid.inside, upright_iou, oriented_rpn.ASSIGNED, lambda boxes: hulls(corners(boxes))


def retinanet(c):
    found = rotated_retinanet.grid(c).anchors
    return found, np.ones(len(found), bool), rotated_iou, rotated_retinanet.ASSIGNED, lambda boxes: boxes


ANCHORS = {"oriented_rcnn": oriented_rcnn, "rotated_retinanet": retinanet}


@partial(jax.jit, static_argnums=(3, 4))
def _found(boxes, there, grid, overlap, by):
    """The best overlap of each object with a usable anchor, and the number of anchors assigned to it."""
    anchors, usable = grid
    which = assign(anchors, boxes, there, usable, overlap, by)
    number = (which[None] == np.arange(len(boxes))[:, None]).sum(1)
    best = jax.lax.map(lambda box: np.max(jax.numpy.where(usable, overlap(box[None], anchors), 0)), boxes)
    return best, number


def objects_of(source, size):
    """Boxes and classes of every image of a source, at the size of the model's images."""
    for i in range(len(source)):
        example = source[i]
        height, width = example["image"].shape[:2]
        outlines = example["boxes"].corners * np.array([size / width, size / height])
        yield np.asarray(from_quadrilaterals(outlines.astype(np.float32))), example["boxes"].classes


def counted(images, c):
    """Class, sides, best overlap and positive anchors of every object, [n, 5]."""
    anchors, usable, overlap, by, outline = ANCHORS[c.head](c)
    rows = []
    for boxes, classes in images:
        if not len(boxes):
            continue
        room = -len(boxes) % _ROOM
        padded = np.pad(outline(boxes), ((0, room), (0, 0)))
        there = np.arange(len(padded)) < len(boxes)
        best, number = (np.asarray(x)[: len(boxes)] for x in _found(padded, there, (anchors, usable), overlap, by))
        rows.append(np.column_stack((classes, boxes[:, 2:4], best, number)))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--head", default="oriented_rcnn", choices=ANCHORS)
    parser.add_argument("--anchor_sizes", default="1,0.5")
    flags = parser.parse_args()
    source = open_source(flags.source, flags.split)
    images, names = list(objects_of(source, flags.size)), source.info.target("boxes").classes
    print("| class | anchor size | objects | sides, px | best overlap | with a positive anchor | positive anchors |")
    print("|---|---|---|---|---|---|---|")
    for size in map(float, flags.anchor_sizes.split(",")):
        c = DetectorConfig(image_size=flags.size, patch_size=flags.patch, head=flags.head, anchor_size=size)
        rows = counted(images, c)
        for kind in np.unique(rows[:, 0]):
            mine = rows[rows[:, 0] == kind, 1:]
            long, short, best, _ = np.median(mine, axis=0)
            with_one, mean = (mine[:, 3] > 0).mean(), mine[:, 3].mean()
            print(
                f"| {names[int(kind)]} | {size:g} | {len(mine)} | {long:.0f} x {short:.0f} | {best:.2f} "
                f"| {with_one:.0%} | {mean:.1f} |"
            )


if __name__ == "__main__":
    main()
