"""The shipped sweeps, planned: their runs can be trained and have the stated cost."""

import dataclasses
import runpy

import pytest

from scaling.compute.counting import training_flops
from scaling.core.config import find_config
from scaling.core.errors import UserError
from scaling.studies.sweeps.plan import component_flops, planned_runs
from tests.commands import isolated

SWEEPS = ("width", "depth", "aspect", "isoflop", "data", "lr_transfer", "pretraining_sets", "length")


def planned(name, **vary):
    file = find_config(f"sweeps/{name}.py")
    values = runpy.run_path(str(file))["get_config"]()
    with values.unlocked():
        values.vary.update(vary)
    return planned_runs(file, values)[1]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_run_of_a_shipped_sweep_can_be_trained_and_is_counted(name):
    plan = planned(name)
    assert [run.row.train_flops for run in plan] == sorted(run.row.train_flops for run in plan)
    assert len({run.row.config_hash for run in plan}) == len(plan)
    for run in plan[:: max(len(plan) // 5, 1)]:
        c = run.config
        shapes, names = c.objective.abstract(c.model)
        image = training_flops(names, shapes, c.objective.tokens(c.model))
        assert run.row.train_flops == c.steps * c.batch_size * image
        parts = component_flops(c)
        assert sum(parts.values()) == run.row.train_flops
        assert run.row.train_flops - parts["decoder"] == run.row.train_flops_encoder
        assert run.row.train_flops_published < run.row.train_flops / 1.8  # multiply-accumulates


def test_runs_of_one_budget_cost_the_same_to_a_step():
    by_budget = {}
    for run in planned("isoflop"):
        by_budget.setdefault(run.name.partition("_")[0], []).append(run)
    assert {name: len(runs) for name, runs in by_budget.items()} == {f"teraflop{b}": 7 for b in (2, 4, 8, 16)}
    for name, runs in by_budget.items():
        budget = 1e12 * float(name.removeprefix("teraflop"))
        for run in runs:
            assert abs(run.row.train_flops - budget) <= 0.5 * run.row.train_flops / run.config.steps


def test_the_star_has_its_centre_once():
    shapes = [(run.row.embed, run.row.layers, run.row.mlp) for run in planned("aspect") if run.config.steps == 100]
    assert len(shapes) == len(set(shapes)) == 13
    assert all(sum(a != b for a, b in zip(shape, (128, 6, 512), strict=True)) <= 1 for shape in shapes)


def test_a_run_that_cannot_be_is_named_before_anything_is_trained():
    with pytest.raises(UserError, match=r"run mask_ratio2_mup_seed0_steps400_width64: objective.mask_ratio=2"):
        planned("width", width=(64,), mask_ratio=(2.0,))
    with pytest.raises(UserError, match=r"has no runs: one of vary is empty"):
        planned("width", width=())
    values = runpy.run_path(str(find_config("sweeps/width.py")))["get_config"]()
    with values.unlocked():
        values.base.update({"early_stopping": 2, "checkpoint": {"best": "eval_loss"}})
    with pytest.raises(
        UserError, match=r"early_stopping=2: the rows state the planned lengths of the runs; leave it out"
    ):
        planned_runs(find_config("sweeps/width.py"), values)
    with pytest.raises(UserError, match="does not pay for one step at width 256"):
        planned("isoflop", teraflop=(1e-6,), width=(256,))


def test_two_runs_of_one_name_and_a_file_that_is_no_sweep_are_refused():
    file = find_config("vit_b.py")
    config = runpy.run_path(str(file))["get_config"]()
    with pytest.raises(UserError, match=r"vit_b.py is not a sweep: it has no runs\(base, vary\)"):
        planned_runs(file, config)
    with pytest.raises(UserError, match=r"'mup_seed0_steps400_width64' is the name of two runs"):
        planned("width", width=(64, 64))


def test_a_sweep_is_planned_before_any_device_is_asked_for():
    """So that the processes of a sweep over several hosts can find each other first."""
    code = """
        import json, runpy
        from jax._src import xla_bridge
        from scaling.core.config import find_config
        from scaling.studies.sweeps.plan import planned_runs
        file = find_config("sweeps/width.py")
        planned_runs(file, runpy.run_path(str(file))["get_config"]())
        print(json.dumps(xla_bridge.backends_are_initialized()))
    """
    assert isolated(code) is False


def test_encoders_of_several_sets_differ_in_nothing_but_set_and_seed():
    plan = planned("pretraining_sets", data="elsewhere")
    assert [run.name for run in plan[:3]] == ["seed0_eurosat", "seed0_hurricane", "seed0_tinyimagenet"]
    assert len(plan) == 9
    assert {run.config.data.source for run in plan} == {
        f"arrayrecord:elsewhere/{name}" for name in ("eurosat", "hurricane", "tinyimagenet")
    }
    assert {run.config.data.split for run in plan} == {"train[:4000]"}
    assert {run.config.steps for run in planned("pretraining_sets", steps=7)} == {7}
    alike = {
        dataclasses.replace(run.config, seed=0, data=dataclasses.replace(run.config.data, source="")) for run in plan
    }
    assert len(alike) == 1
