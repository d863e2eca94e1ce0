"""Searches for the fastest variant and for the smallest slice, with a stand-in for the compiler."""

import dataclasses
import functools

import pytest

from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.parallel.mesh import MeshConfig, mesh_shape
from scaling.training.config import TrainConfig
from tpu.compiler import table
from tpu.compiler.fit import fastest, overrides, smallest
from tpu.compiler.floor import floor
from tpu.compiler.step import state_bytes, train_step_for
from tpu.compiler.topology import parse

pytestmark = pytest.mark.usefixtures("compiler")


def attempts(holds, hbm=(0, 0, 0)):
    """A stand-in for the compiler: memory falls with accumulation and remat, and microbatches cost time.

    holds: memory as shares of the HBM of four chips, with remat none, dots and full; a quarter of it is needed by every
    microbatch.
    hbm: time of the traffic to HBM with each, relative to the least that a step may take.
    """
    policies = ("none", "dots", "full")
    held, moved = (dict(zip(policies, each, strict=True)) for each in (holds, hbm))
    tried = []

    def attempt(c, place):
        tried.append((c.model.remat, c.accumulate, place.name))
        whole = held[c.model.remat] * place.hbm_limit * 4 / place.chips
        row = {"accumulate": c.accumulate, "topology": place.name, "hbm_limit_bytes": place.hbm_limit}
        row["hbm_per_chip_bytes"] = int(whole * (1 / 4 + 3 / 4 / c.accumulate))
        row["fits"] = row["hbm_per_chip_bytes"] <= place.hbm_limit
        least = floor(train_step_for(dataclasses.replace(c, accumulate=1), place), place)
        seconds = {"compute": least * (5 + c.accumulate) / 6, "hbm": least * moved[c.model.remat]}
        return row | ({"seconds": seconds, "binding": "compute"} if row["fits"] else {})

    return attempt, tried


BATCH_OF_64 = TrainConfig(batch_size=64)


@pytest.mark.parametrize(
    ("holds", "hbm", "flags", "count"),
    [
        ((1, 0.5, 0.2), (0, 0, 0), "--config.model.remat=none --config.accumulate=1", 1),
        ((1, 0.5, 0.2), (1.9, 1.3, 2.0), "--config.model.remat=dots --config.accumulate=1", 3),  # it moves less
        ((1.5, 0.9, 0.2), (0, 0, 0), "--config.model.remat=dots --config.accumulate=1", 3),  # and none with 2
        ((3, 1.5, 0.9), (0, 0, 0), "--config.model.remat=dots --config.accumulate=2", 5),
    ],
)
def test_the_fastest_that_fits_is_found(holds, hbm, flags, count):
    attempt, tried = attempts(holds, hbm)
    best, rows = fastest(BATCH_OF_64, parse("v5e:2x2"), attempt)
    assert overrides(best) == flags
    assert len(rows) == len(set(tried)) == count


def test_where_links_bind_the_fastest_mesh_is_found_without_compiling_most():
    """A stand-in, whose programs take twice the least time on the config's own mesh, and 1.2 times on any other."""
    model = ViTConfig(width=512, depth=3, heads=4, head_dim=128, mlp=2048, image_size=64)
    c, place, tried = TrainConfig(batch_size=256, model=model), parse("v6e:4x4"), []

    @functools.cache
    def seconds(shape):
        train_step = train_step_for(dataclasses.replace(c, mesh=MeshConfig(*shape)), place)
        state = 2 * state_bytes(train_step) / place.chip.hbm_bandwidth
        return {"ici": floor(train_step, place) * (2 if shape == (1, 16, 1) else 1.2), "hbm": state}

    def attempt(c, place):
        shape = mesh_shape(c.mesh, 16)
        tried.append((c.model.remat, shape))
        return {"fits": True, "accumulate": 1, "seconds": seconds(shape), "hbm_per_chip_bytes": 1, "binding": "ici"}

    best, rows = fastest(c, place, attempt)
    sizes = 1, 2, 4, 8, 16
    times = {
        (r, n, t): max(seconds((r, n, t)).values()) for r in sizes for n in sizes for t in sizes[:3] if r * n * t == 16
    }
    found = mesh_shape(best.mesh, 16)
    assert times[found] <= min(times.values()) / 0.95 < times[1, 16, 1]
    assert len(rows) == len(set(tried)) < len(times)
    assert "--config.mesh.replica=" in overrides(best)
    assert fastest(c, place, attempt, other_meshes=False)[0].mesh == c.mesh


def test_microbatches_that_cannot_be_small_enough_are_not_compiled():
    attempt, tried = attempts((9, 9, 3))
    best, _ = fastest(BATCH_OF_64, parse("v5e:2x2"), attempt)
    assert overrides(best) == "--config.model.remat=full --config.accumulate=16"
    assert tried == [(*variant, "v5e:2x2") for variant in [("none", 1), ("none", 16), ("dots", 1), ("dots", 16)]] + [
        ("full", n, "v5e:2x2") for n in (1, 4, 16)
    ]


def test_a_model_that_never_fits_is_refused():
    with pytest.raises(UserError, match=r"nothing fits on v5e:2x2"):
        fastest(TrainConfig(batch_size=8), parse("v5e:2x2"), attempts((99, 99, 99))[0])


def test_the_smallest_slice_is_found_without_compiling_where_the_state_alone_is_too_large():
    c = dataclasses.replace(table.load("vit_22b.py"), batch_size=512)
    attempt, _ = attempts((9, 9, 9))
    *refused, row = smallest(c, "v5e", attempt)
    assert (row["topology"], row["accumulate"], row["fits"]) == ("v5e:4x8", 2, True)
    # 22 billion parameters of 10 bytes: 13.6 GB over 16 chips, with sums of their gradients 19 GB
    assert [(x["topology"], x["accumulate"]) for x in refused] == [("v5e:4x4", 1), ("v5e:4x8", 1)]
    with pytest.raises(UserError, match=r"no slice of v5e that Cloud TPU offers is large enough$"):
        smallest(c, "v5e", attempts((999, 999, 999))[0])


def test_slices_that_a_mesh_cannot_be_laid_over_are_passed_over():
    c = dataclasses.replace(table.load("vit_b.py"), mesh=MeshConfig(replica=-1, fsdp=64))
    (row,) = smallest(c, "v5e", attempts((9, 9, 9))[0])
    assert row["topology"] == "v5e:8x8"
    c = dataclasses.replace(c, mesh=MeshConfig(replica=-1, fsdp=3))
    with pytest.raises(UserError, match=r"no slice of v5e .* is large enough; v5e:16x16: .* must multiply to the 256"):
        smallest(c, "v5e", attempts((9, 9, 9))[0])
