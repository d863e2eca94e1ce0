"""Oriented R-CNN does what mmrotate's code does, here in plain numpy, one image and one box after the other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from scaling.boxes.align import pyramid_levels, rotated_roi_align
from scaling.boxes.assign import NEGATIVE
from scaling.boxes.coders import from_midpoint_offset, from_rotated_delta, midpoint_offset, rotated_delta
from scaling.boxes.convert import corners, hulls
from scaling.boxes.overlap import rotated_iou, upright_iou
from scaling.models.heads import oriented_rcnn, oriented_rpn
from scaling.models.heads.detection import Truth
from tests.boxes.test_assign import as_published
from tests.models.heads.detection_examples import CONFIG, IMAGES, greedy, keys, maps, truth, weights

C, P, MAPS, TRUTH = CONFIG, weights(), maps(), truth()


@functools.cache
def first_stage():
    """Outputs of the convolutions everywhere, the sampled anchors, and the proposals."""

    def run(p, maps, truth, keys):
        everywhere = oriented_rpn.everywhere(p, maps)
        drawn = oriented_rpn.drawn(C, truth, keys[:, 0])
        return everywhere, drawn, oriented_rpn.proposals(C, *everywhere)

    return jax.device_get(jax.jit(run)(P, MAPS, TRUTH, keys()))


@functools.cache
def second_stage():
    """The sampled regions, the predictions for all proposals, and the detections."""

    def run(p, maps, boxes, valid, truth, keys):
        drawn = oriented_rcnn.drawn(C, boxes, valid, truth, keys[:, 1])
        told = oriented_rcnn.told(p, C, maps, boxes)
        return drawn, told, oriented_rcnn.oriented_rcnn_found(p, C, maps)

    return jax.device_get(jax.jit(run)(P, MAPS, *first_stage()[2], TRUTH, keys()))


def test_what_is_sampled_has_the_values_and_the_gradient_of_the_convolutions_everywhere():
    index = np.random.default_rng(0).integers(0, len(oriented_rpn.grid(C).anchors), (IMAGES, 50))
    index[:, :3] = 0, 63, len(oriented_rpn.grid(C).anchors) - 1  # corners

    def sampled(p, maps, ratio_off=0):
        logits, offsets = oriented_rpn.at(p, maps, index + ratio_off)
        return (logits**2).sum() + (offsets**3).sum(), (logits, offsets)

    def dense(p, maps):
        logits, offsets = oriented_rpn.everywhere(p, maps)
        logits = jnp.take_along_axis(logits, index, 1)
        offsets = jnp.take_along_axis(offsets, index[..., None], 1)
        return (logits**2).sum() + (offsets**3).sum(), (logits, offsets)

    ours, theirs = (jax.jit(jax.grad(f, (0, 1), has_aux=True))(P, MAPS) for f in (sampled, dense))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4), ours, theirs)
    assert max(np.abs(x).max() for x in jax.tree.leaves(ours[0][1])) > 0.1


def test_anchors_are_drawn_from_those_that_are_assigned():
    grid, (_, (taken, offsets), _) = oriented_rpn.grid(C), first_stage()
    assert 0 < grid.inside.sum() < len(grid.anchors)
    for image in range(IMAGES):
        there = TRUTH.there[image]
        outlines = hulls(corners(TRUTH.boxes[image][there]))
        which = np.full(len(grid.anchors), -3)
        which[grid.inside] = as_published(grid.anchors[grid.inside], outlines, oriented_rpn.ASSIGNED)
        mine, positive = taken.numbers[image], taken.positive[image]
        assert positive.sum() == min((which >= 0).sum(), 16)
        assert taken.drawn[image].all()
        assert (which[mine[positive]] >= 0).all()
        assert (which[mine[~positive]] == NEGATIVE).all()
        expected = midpoint_offset(grid.anchors[mine[positive]], TRUTH.boxes[image][which[mine[positive]]])
        np.testing.assert_allclose(offsets[image][positive], expected, rtol=1e-4, atol=1e-4)
        assert not offsets[image][~positive].any()
    assert taken.positive[0].any()
    assert not taken.positive[1].any()  # without objects


def test_proposals_are_the_best_of_every_level_without_those_that_others_overlap():
    grid, ((logits, offsets), _, (boxes, valid)) = oriented_rpn.grid(C), first_stage()
    for image in range(IMAGES):
        chosen, start = [], 0
        for count in grid.of_level:
            of_level = start + np.argsort(-logits[image][start : start + count], kind="stable")[: C.proposals]
            upright = hulls(corners(from_midpoint_offset(grid.anchors[of_level], offsets[image][of_level])))
            kept = greedy(upright, logits[image][of_level], 0.8, upright_iou, C.proposals)
            chosen += of_level[kept].tolist()
            start += count
        best = sorted(chosen, key=lambda i: -logits[image][i])[: C.proposals]
        expected = from_midpoint_offset(grid.anchors[best], offsets[image][best])
        assert valid[image].sum() == len(best) == C.proposals
        np.testing.assert_allclose(boxes[image], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("anchor_size", "taken"), [(1.0, False), (0.5, True)])
def test_an_object_that_is_small_beside_every_anchor_is_learned_from_only_with_smaller_ones(anchor_size, taken):
    c = dataclasses.replace(C, anchor_size=anchor_size)
    sides = oriented_rpn.grid(c).anchors[:, 2:] - oriented_rpn.grid(c).anchors[:, :2]
    np.testing.assert_allclose(np.sqrt(sides.prod(1)).min(), 16 * anchor_size, rtol=1e-5)
    car = Truth(np.float32([[[30, 30, 9, 4, 0]]]), np.int32([[0]]), np.array([[True]]))
    sample, _ = jax.jit(lambda truth, keys: oriented_rpn.drawn(c, truth, keys))(car, keys()[:1, 0])
    assert sample.positive.any() == taken


def test_regions_are_drawn_from_proposals_and_from_the_objects_themselves():
    (boxes, valid), (rois, _, _) = first_stage()[2], second_stage()
    for image in range(IMAGES):
        there = TRUTH.there[image]
        objects, classes = TRUTH.boxes[image][there], TRUTH.classes[image][there]
        candidates = np.concatenate((objects, boxes[image][valid[image]]))
        which = np.full(len(candidates), NEGATIVE)
        if len(objects):
            overlaps = np.asarray(rotated_iou(objects[:, None], candidates[None]))
            which = np.where(overlaps.max(0) >= 0.5, overlaps.argmax(0), NEGATIVE)
        positive, mine = rois.sample.positive[image], rois.boxes[image]
        assert positive.sum() == min((which >= 0).sum(), 6)
        assert rois.sample.drawn[image].all()
        for box, is_object, told, deltas in zip(mine, positive, rois.classes[image], rois.deltas[image], strict=True):
            (number,) = np.flatnonzero((candidates == box).all(1))
            assert (which[number] >= 0) == is_object
            assert told == (classes[which[number]] if is_object else C.classes)
            expected = rotated_delta(box, objects[which[number]]) if is_object else np.zeros(5)
            np.testing.assert_allclose(deltas, expected, rtol=1e-3, atol=1e-3)
    assert rois.sample.positive[0].sum() >= 4  # at least the objects
    assert not rois.sample.positive[1].any()


def plain_smooth_l1(x, beta):
    return sum(0.5 * v * v / beta if abs(v) < beta else abs(v) - 0.5 * beta for v in np.ravel(x))


def test_the_losses_are_sums_over_what_is_drawn_and_how_many_those_are():
    run = jax.jit(lambda p, maps, truth, keys: oriented_rcnn.oriented_rcnn_losses(p, C, maps, truth, keys))
    parts = jax.device_get(run(P, MAPS, TRUTH, keys()))
    ((logits, offsets), (taken, targets), _), rois = first_stage(), second_stage()[0]
    told = jax.jit(lambda p, maps, boxes: oriented_rcnn.told(p, C, maps, boxes))
    classes, deltas = (np.asarray(x, np.float64) for x in told(P, MAPS, rois.boxes))
    expected = {name: [] for name in parts}
    for i in range(IMAGES):
        at, positive = taken.numbers[i], taken.positive[i]
        signed = np.where(positive, -1, 1) * logits[i][at].astype(np.float64)
        expected["rpn_objects"].append(np.logaddexp(0, signed).sum())
        expected["rpn_boxes"].append(plain_smooth_l1((offsets[i][at] - targets[i])[positive], 1 / 9))
        expected["classes"].append(-log_softmax(classes[i], axis=-1)[np.arange(24), rois.classes[i]].sum())
        expected["boxes"].append(plain_smooth_l1((deltas[i] - rois.deltas[i])[rois.sample.positive[i]], 1))
    for name, part in parts.items():
        np.testing.assert_allclose(part.total, expected[name], rtol=2e-4, err_msg=name)
        np.testing.assert_array_equal(part.samples, [32 if name.startswith("rpn") else 24] * IMAGES)
    assert parts["boxes"].total[0] > 0
    assert parts["boxes"].total[1] == 0


def test_two_layers_read_the_cells_of_a_box():
    (boxes, _), (_, (logits, deltas), _) = first_stage()[2], second_stage()
    levels = pyramid_levels(boxes[0], 4, 28)  # 56 pixels where patches of 16 make strides from 4 on
    assert len(set(np.asarray(levels).tolist())) > 1
    read = rotated_roi_align([x[0] for x in MAPS[:4]], (2, 4, 8, 16), boxes[0], levels, 7)
    x = np.asarray(read, np.float64).reshape(len(read), -1)
    for name in ("box_first", "box_second"):
        x = np.maximum(x @ P[name]["kernel"].reshape(x.shape[1], -1) + P[name]["bias"], 0)
    for name, found in (("classes", logits), ("deltas", deltas)):
        expected = x @ P[name]["kernel"][0, 0] + P[name]["bias"]
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)


def test_detections_are_of_every_class_that_scores_and_suppress_their_own_class_alone():
    (boxes, valid), (_, (logits, deltas), found) = first_stage()[2], second_stage()
    for image in range(IMAGES):
        scores = softmax(logits[image][valid[image]], axis=-1)[:, :-1]
        decoded = np.asarray(from_rotated_delta(boxes[image], deltas[image], (64, 64)))[valid[image]]
        expected = []
        for label in range(C.classes):
            enough = np.flatnonzero(scores[:, label] > 0.05)
            kept = greedy(decoded[enough], scores[enough, label], 0.1, rotated_iou, 1000)
            expected += [(scores[i, label], label, i) for i in enough[kept]]
        expected = sorted(expected, key=lambda row: -row[0])[: C.detections]
        there = found.valid[image]
        assert there.sum() == len(expected)
        np.testing.assert_allclose(found.scores[image][there], [row[0] for row in expected], rtol=1e-4)
        np.testing.assert_array_equal(found.labels[image][there], [row[1] for row in expected])
        rows = [row[2] for row in expected]
        np.testing.assert_allclose(found.boxes[image][there], decoded[rows], rtol=1e-3, atol=1e-3)
        assert len({row[1] for row in expected}) > 1


@pytest.mark.parametrize("counts", [(0, 0), (6, 6)])
def test_any_number_of_objects_has_finite_losses_and_gradients(counts):
    def loss(p, maps, truth):
        parts = oriented_rcnn.oriented_rcnn_losses(p, C, maps, truth, keys())
        return sum(part.total.sum() for part in parts.values())

    some = truth(counts=counts)
    some.boxes[0, 1] = (200, 30, 20, 10, 0.3)  # outside
    some.boxes[0, 2] = (30, -50, 0.5, 0.25, 0)  # and tiny
    some.boxes[0, 3] = some.boxes[0, 4]  # twice the same
    value, gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))(P, MAPS, some)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
