"""Batches reach the devices in order, a few ahead, and nothing else is requested from the pipeline."""

import jax
import numpy as np

from scaling.parallel.batches import LocalRows
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.training.prefetch import Feed


def batches(count, made):
    for i in range(count):
        made.append(i)
        yield {"image": np.full((16, 2), i), "name": np.full(16, i)}


def feed(count, made, ahead=2):
    rows = LocalRows(make_mesh(MeshConfig(replica=2, fsdp=4)), 16)
    return Feed(batches(count, made), rows, ("image",), ahead)


def test_batches_come_in_order_and_end():
    seen = [(host["name"][0], int(device["image"][0, 0])) for host, device in feed(5, [])]
    assert seen == [(i, i) for i in range(5)]
    assert list(feed(0, [])) == []


def test_only_the_arrays_asked_for_are_moved_and_they_are_split_over_the_devices():
    _, device = next(feed(1, []))
    assert list(device) == ["image"]
    assert len(device["image"].sharding.device_set) == len(jax.devices())
    assert device["image"].addressable_shards[0].data.shape == (2, 2)


def test_it_stays_a_few_batches_ahead():
    made = []
    f = feed(10, made, ahead=3)
    next(f)
    assert made == [0, 1, 2]
    next(f)
    assert made == [0, 1, 2, 3]
    assert f.waited > 0
