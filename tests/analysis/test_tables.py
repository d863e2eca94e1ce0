"""Tables of sweeps agree with the rows."""

import dataclasses

from scaling.analysis.tables import sweep_tables
from scaling.core.rows import Row

ROW = Row("s", "m", "mae", 1, 1, 0.5, 0.5, 0.5, 1.0, "inner", "svd", "ridge", "scenes", "test", "knn", "accuracy", 0.5)


def test_a_cell_is_the_mean_over_seeds_with_the_widest_interval():
    rows = [
        dataclasses.replace(ROW, low=0.4, high=0.55),
        dataclasses.replace(ROW, seed=1, value=0.6, low=0.5, high=0.7),
        dataclasses.replace(ROW, width_ratio=1.0, value=0.75),
        dataclasses.replace(ROW, ordering="first", recovery="none", width_ratio=1.0, value=None),
        dataclasses.replace(ROW, mode="control", ordering="depth_0", recovery="none", width_ratio=1.0, value=0.25),
    ]
    assert sweep_tables(rows).splitlines() == [
        "### scenes, knn: accuracy",
        "",
        "|  | s = 0.5 | s = 1 |",
        "| --- | --- | --- |",
        "| m svd ridge | 0.550 (0.400 to 0.700) | 0.750 |",
        "",
        "Controls: depth_0 0.250",
    ]


def test_an_interval_that_a_seed_does_not_have_is_not_that_of_the_others():
    rows = [dataclasses.replace(ROW, low=0.4, high=0.55), dataclasses.replace(ROW, seed=1, value=0.6)]
    assert "| m svd ridge | 0.550 |" in sweep_tables(rows)


def test_rows_that_are_of_several_studies_are_not_averaged_as_if_they_were_seeds():
    other = dataclasses.replace(ROW, value=0.9, step=20, config_hash="b")
    lines = sweep_tables([dataclasses.replace(ROW, step=10, config_hash="a"), other])
    assert "| m svd ridge (step 10) | 0.500 |" in lines
    assert "| m svd ridge (step 20) | 0.900 |" in lines
    of_b = dataclasses.replace(other, step=10)
    lines = sweep_tables([dataclasses.replace(ROW, step=10, config_hash="a"), of_b])
    assert "| m svd ridge (config hash b) | 0.900 |" in lines


def test_what_was_measured_twice_counts_once():
    again = dataclasses.replace(ROW, config_hash="b")
    second = dataclasses.replace(ROW, seed=1, value=0.8, config_hash="b")
    assert "| m svd ridge | 0.650 |" in sweep_tables([ROW, again, second])


def test_controls_of_several_encoders_are_each_its_own():
    depth_0 = dataclasses.replace(ROW, mode="control", ordering="depth_0", recovery="none", width_ratio=1.0)
    other = dataclasses.replace(depth_0, model="n", value=0.7)
    lines = sweep_tables([ROW, depth_0, dataclasses.replace(ROW, model="n"), other]).splitlines()
    assert lines[-1] == "Controls: depth_0 (model m) 0.500; depth_0 (model n) 0.700"


def test_a_mean_of_some_seeds_says_of_how_many():
    rows = [dataclasses.replace(ROW, seed=seed, low=0.4, high=0.6) for seed in range(2)]
    rows.append(dataclasses.replace(ROW, seed=2, value=None))
    control = [dataclasses.replace(r, mode="control", ordering="depth_0", recovery="none") for r in rows]
    lines = sweep_tables(rows + control).splitlines()
    assert "| m svd ridge | 0.500 (2 of 3 seeds) |" in lines
    assert lines[-1] == "Controls: depth_0 0.500 (2 of 3 seeds)"


def test_gains_that_stand_after_holm_over_their_table_are_bold():
    gain = dataclasses.replace(ROW, metric="accuracy_gain", value=0.06, low=0.02, high=0.10)  # p 0.0033 alone
    alone = sweep_tables([gain]).splitlines()
    assert "| m svd ridge | **0.060 (0.020 to 0.100)** |" in alone
    assert "Bold: stands after Holm over this table, at 5 %." in alone
    noise = dataclasses.replace(gain, value=0.01, low=-0.04, high=0.06)
    many = [dataclasses.replace(noise, width_ratio=0.01 * i) for i in range(1, 20)]  # 20 tests: 0.066
    assert "**" not in sweep_tables([gain, *many])
    assert "**" not in sweep_tables([dataclasses.replace(gain, metric="accuracy")])
