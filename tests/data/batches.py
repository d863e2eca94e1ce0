"""Batches of training for tests of what they hold."""

import hashlib
import itertools

import numpy as np

from scaling.data.config import open_sources
from scaling.data.pipeline import train_batches


def take(count, config, start=0, **options):
    """The first batches of training, and the iterator closed."""
    source, _ = open_sources(config)
    options = {"image_size": 16, "seed": 3, "batch_size": 8} | options
    batches = train_batches(source, config, start=start, **options)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def digest(batches):
    """Hash of the content of some batches."""
    found = hashlib.sha256()
    for batch in batches:
        for key, x in sorted(batch.items()):
            found.update(f"{key} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return found.hexdigest()[:16]
