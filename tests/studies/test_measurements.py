"""Files and folders as measured numbers."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.rows import Results
from scaling.models.config import ViTConfig
from scaling.studies.laws import fit_law
from scaling.studies.measurements import read_measurements
from scaling.studies.rows import pretraining_row
from scaling.training.config import TrainConfig
from tests.rows import ROW

CONFIG = TrainConfig(
    steps=100,
    batch_size=8,
    model=ViTConfig(image_size=16, patch_size=8, width=32, depth=1, heads=2, head_dim=16, mlp=64),
)


def run(folder, log, config=CONFIG):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config_dict(config).to_json_best_effort())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def test_runs_give_their_final_and_best_values_with_parameters_and_operations(tmp_path):
    run(
        tmp_path / "width" / "a",
        [{"step": 50, "loss": 1.0, "eval_loss": 0.7}, {"step": 60, "loss": 0.9, "eval_loss": 0.8}],
    )
    run(
        tmp_path / "width" / "diverged",
        [{"step": 10, "loss": 2.0, "accuracy": 0.5, "eval_loss": 2.5}, {"step": 20, "loss": "nan", "eval_loss": "inf"}],
    )
    (tmp_path / "width" / "b").mkdir()
    (tmp_path / "width" / "b" / "metrics.jsonl").write_text('{"step": 1}\n')
    rows, passed_over = read_measurements(epath.Path(tmp_path / "width"))
    values = {(row.model, row.metric): row.value for row in rows}
    assert values == {
        ("a", "loss"): 0.9, ("a", "best_loss"): 0.9, ("a", "eval_loss"): 0.8, ("a", "best_eval_loss"): 0.7,
        ("diverged", "loss"): None, ("diverged", "best_loss"): 2.0, ("diverged", "accuracy"): 0.5,
        ("diverged", "best_accuracy"): 0.5, ("diverged", "eval_loss"): None, ("diverged", "best_eval_loss"): 2.5,
    }  # fmt: skip
    counted = pretraining_row("width", "a", dataclasses.replace(CONFIG, steps=60))  # as far as it has come
    assert dataclasses.replace(rows[0], metric="", value=None, config_hash="") == dataclasses.replace(
        counted, config_hash=""
    )
    assert passed_over == [f"{tmp_path}/width/b: there is no config.json beside metrics.jsonl"]


def test_runs_give_the_goodput_over_all_their_starts(tmp_path):
    at = {"loss": 1.0, "images_per_second": CONFIG.batch_size / 2.0, "goodput": 0.9}  # two seconds a step
    run(tmp_path / "a", [{"step": 11, "elapsed": 25.0, **at}, {"step": 21, "elapsed": 30.0, **at}])
    starts = [{"began": 1000.0, "step": 0}, {"began": 1050.0, "step": 11, "ended": 1030.0, "lost": 5.0}]
    (tmp_path / "a" / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    rows, _ = read_measurements(epath.Path(tmp_path))
    values = {row.metric: row.value for row in rows}
    assert values["goodput"] == 0.9  # of the newest start
    # Steps 2 to 11 and 13 to 21 (the first of a start is compiled) of two seconds, in 80 since the first start.
    assert values["goodput_of_all_starts"] == pytest.approx((10 + 9) * 2 / 80)


def test_a_folder_gives_its_rows_before_its_runs(tmp_path):
    run(tmp_path / "a", [{"step": 1, "loss": 1.0}])
    own = [dataclasses.replace(ROW, metric="loss", value=0.5)]
    Results(tmp_path / "rows.jsonl").add(own)
    assert read_measurements(epath.Path(tmp_path)) == (own, [])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"there is no rows.jsonl, NAME.rows.jsonl, metrics.jsonl or event file"):
        read_measurements(epath.Path(tmp_path / "none"))


def test_one_call_fits_what_lies_anywhere(tmp_path):
    n = np.geomspace(1e6, 1e9, 8)
    table = {"N": n, "acc": 100 * (1 - 3 * n**-0.25), "name": ["a"] * 8}
    found = fit_law(table, "N", "err", "line", columns=["err=1-acc/100"], where=["name=a"], resamples=5)
    assert found.fit.constants == pytest.approx({"a": 3.0, "b": 0.25})
    file = tmp_path / "runs.csv"
    file.write_text("N,loss\n" + "".join(f"{x},{3 * x**-0.25}\n" for x in n) + "1e5,\n")
    found = fit_law(file, "N", "loss", "line", resamples=5)
    assert found.fit.constants == pytest.approx({"a": 3.0, "b": 0.25})
    assert found.warnings[0] == "1 rows are left out: loss is empty in 1 of 9 rows (runs.csv, row 9)"


POINTS = [{"N": n, "loss": 3 * n**-0.25} for n in (1e6, 1e7, 1e8, 1e9)]


def test_rows_as_dicts_are_fitted_and_asked_with_numbers_of_any_writing():
    law = fit_law(POINTS, "N", "loss", "line", resamples=5)
    for asked in (3e8, [3e8], "300M", ["300M"], [[3e8]]):
        (told,) = law.at(asked)
        assert (told.inputs, told.value) == ((3e8,), pytest.approx(3 * 3e8**-0.25))
    assert law.at([]) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"delta": -1}, "delta=-1: must be positive"),
        ({"resamples": 0}, "resamples=0: must be 1 or more"),
        ({"form": "isoflop"}, "form=isoflop: must be one of line, .*; isoflop is of the command"),
        ({"measured": None}, "None: no measurements; give columns"),
        ({"measured": []}, r"\[\]: no measurements; give columns"),
        ({"measured": [None]}, r"\[None\]: no measurements; give columns"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(asked, said):
    with pytest.raises(UserError, match=f"^{said}") as refused:
        fit_law(**{"measured": POINTS, "x": "N", "y": "loss", "form": "line", **asked})
    assert "\n" not in str(refused.value)


def test_inputs_that_are_no_numbers_are_refused():
    law = fit_law(POINTS, "N", "loss", "line", resamples=5)
    for wrong in (["big"], None, [[1, 2]], [[1], [2, 3]]):
        with pytest.raises(UserError, match=r"must be numbers|needs 1 inputs"):
            law.at(wrong)


@pytest.mark.parametrize(
    ("cells", "sized"),
    [
        (["1,000", "1,000,000"], "replace(N, ',', '')"),
        (["0,5", "1,5"], "replace(N, ',', '.')"),
        (["50%", "5%"], "/100"),
    ],
)
def test_numbers_written_for_people_get_the_column_that_reads_them(cells, sized):
    table = {"N": [*cells] * 3, "loss": [3.0, 2.0] * 3}
    with pytest.raises(UserError) as refused:
        fit_law(table, "N", "loss", "line", resamples=5)
    advice = str(refused.value).split('columns=["')[1].split('"] makes one')[0]
    assert sized in advice
    made = fit_law(table, "N", "loss", "line", resamples=5, columns=[advice])
    assert made.span[1, 0] > 0
