"""A detector declares its parameters once; sharding, decay, learning rates and operations follow."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling import axes
from scaling.compute.counting import flops
from scaling.core.errors import UserError
from scaling.models.classifier import layers_below_head
from scaling.models.config import encoder_config
from scaling.models.detector import abstract_detector
from scaling.models.heads.detectors import DETECTORS
from scaling.models.variants import encoder
from scaling.models.vit import abstract_vit
from scaling.tasks.detection import Detecting
from tests.models.heads.detection_examples import CONFIG


@pytest.mark.parametrize("head", DETECTORS)
def test_the_encoder_is_that_of_a_checkpoint_and_kernels_alone_decay(head):
    c = dataclasses.replace(CONFIG, head=head)
    shapes, names = abstract_detector(c)
    assert names["encoder"] == abstract_vit(encoder_config(c))[1]
    for leaf in axes.parameters(names, shapes):
        if leaf.path.startswith("head/"):
            assert axes.is_kernel(leaf.names) == leaf.path.endswith("/kernel"), leaf


def test_kernels_are_split_over_both_axes_of_a_mesh():
    task, model = Detecting(classes=("a",)), encoder("vit_b", image_size=64)
    shapes, names = task.abstract(model)
    mesh = {"replica": 1, "fsdp": 4, "tensor": 2}
    for group in ("box_first", "box_second", "rpn", "smooth_0", "lateral_3", "up2"):
        kernel = shapes["head"][group]["kernel"]
        parts = axes.partition(names["head"][group]["kernel"], kernel.shape, mesh)
        assert [part for part in parts if part] == [("fsdp",), ("tensor",)], group


def test_learning_rates_fall_from_the_head_down_and_a_frozen_encoder_has_none():
    names = abstract_detector(CONFIG)[1]
    below, frozen = (layers_below_head(names, CONFIG, frozen=frozen) for frozen in (False, True))
    assert not any(np.any(x) for x in jax.tree.leaves((below["head"], frozen["head"], below["encoder"]["norm"])))
    assert below["encoder"]["patch"]["kernel"] == CONFIG.depth + 1
    assert all(np.isinf(x).all() for x in jax.tree.leaves(frozen["encoder"]))


def test_operations_are_those_of_the_published_sizes():
    """Operations of Oriented R-CNN at 1024 pixels, counted by hand."""
    task, model = Detecting(classes=("a",) * 15), encoder("vit_b", image_size=1024)
    shapes, names = task.abstract(model)
    cells = [256**2, 128**2, 64**2, 32**2, 16**2]
    convolution = 9 * 256 * 256
    pyramid = 4 * 64**2 * 768 * 384 + 4 * 128**2 * 384 * 192 + 4 * 64**2 * 768 * 384
    pyramid += sum(n * (width * 256 + convolution) for n, width in zip(cells, (192, 384, 768, 768), strict=False))
    proposals = sum(cells) * (convolution + 256 * 3 + 256 * 18)
    regions = 512 * (49 * 256 * 1024 + 1024 * 1024 + 1024 * 16 + 1024 * 5)
    norms = 5 * (4 * 64**2 * 384 + 2 * 256 * sum(cells[:4]))
    counted = flops(names, shapes, task.tokens(model))["full"]["head"]
    assert counted == 2 * (pyramid + proposals + regions) + norms


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "fcos"}, r"task\.head='fcos': must be one of oriented_rcnn, rotated_retinanet"),
        ({"groups": 2}, "needs one token per patch"),
        (
            {"image_size": 72},
            "image_size=72: the pyramid halves the 9 patches of a side; set a multiple of 16, such as 80",
        ),
        ({"image_width": 40}, "image_width=40: the pyramid halves the 5 patches of a side"),
        ({"channels": 0}, "task.channels=0: must be at least 1"),
        ({"anchor_samples": 3}, "task.anchor_samples=3: must be at least 4"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields).check()
