"""The coordinate check: numbers keep their size with the width under muP, not under the standard parametrization."""

import pytest

from scaling.data.config import DataConfig
from scaling.studies.sweeps.variation import vary
from scaling.training.config import TrainConfig
from scaling.training.coord_check import coordinates, spread
from scaling.training.optimizer import OptimizerConfig
from tests.models.sizes import halves, small

STEPS = 3
BASE = TrainConfig(
    batch_size=32,
    **halves(small(width=32, heads=1, head_dim=32, depth=1)),
    data=DataConfig(source="scenes?size=16&count=512"),
    optimizer=OptimizerConfig(base_lr=0.08),
)


@pytest.mark.long
def test_numbers_keep_their_size_under_mup_alone():
    sizes = {}

    def report(c, step, values):
        for part, value in values.items():
            sizes.setdefault((c.parametrization.name, step, part), []).append(value)

    configs = [vary(BASE, {"parametrization": n, "width": w})[1] for n in ("standard", "mup") for w in (32, 512)]
    coordinates(configs, STEPS, report)
    parts = {part for _, _, part in sizes}
    layer = {"tokens", "attention/0", "mlp/0"}
    assert parts == layer | {f"decoder/{part}" for part in layer} | {"stem", "embed", "prediction"}
    assert {len(values) for values in sizes.values()} == {2}
    largest = {n: max(spread(sizes[n, STEPS, part]) for part in parts) for n in ("standard", "mup")}
    assert largest["mup"] < 2 < largest["standard"]


@pytest.mark.long
def test_completep_keeps_the_tokens_behind_any_number_of_layers():
    """The output of a layer is as large in a deep encoder as in a shallow one, and so is the sum of all layers."""
    sizes = {}

    def report(c, step, values):
        if step == STEPS:
            for part in ("tokens", "attention/0"):
                sizes.setdefault((c.parametrization.name, part), []).append(values[part])

    configs = [vary(BASE, {"parametrization": n, "depth": d})[1] for n in ("mup", "completep") for d in (1, 8)]
    coordinates(configs, STEPS, report)
    assert spread(sizes["completep", "tokens"]) < 1.5 < spread(sizes["mup", "tokens"])
    assert spread(sizes["completep", "attention/0"]) < 2


def test_spread_is_largest_over_smallest():
    assert spread([2.0, 8.0, 4.0]) == 4
