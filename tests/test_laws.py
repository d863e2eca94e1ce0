"""The command on rows as the others write them."""

import json

import pytest

from scaling.results import Row
from tests.analysis.laws.examples import losses
from tests.commands import command, error_of, run

FIELDS = {
    "study": "s", "model": "vit", "objective": "mae", "compute": 1.0, "compute_published": 1.0, "width": 1.0,
    "depth": 1.0, "mode": "inner", "ordering": "first", "recovery": "none", "dataset": "scenes", "split": "test",
    "probe": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    x, y = losses("power", noise=0.005)
    made = [
        Row(params=round(n), flops=round(6 * n), metric="loss", value=v, **FIELDS) for n, v in zip(x, y, strict=True)
    ]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in made))
    return file


def test_parameters_intervals_and_figures_come_out(rows, tmp_path):
    line = command("laws", y="loss", form="power", json=tmp_path / "law.json", figure=tmp_path / "law", resamples=300)
    done = run([*line, str(rows)])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "law.json").read_text())
    assert found["form"] == "power"
    assert set(found["parameters"]) == {"a", "b", "c"}
    b = found["parameters"]["b"]
    assert b["low"] <= b["value"] <= b["high"]
    assert abs(b["value"] - 0.35) < 0.1
    assert "loss = a x^-b + c, 14 rows" in done.stdout
    assert "held out: the 4 largest" in done.stdout
    assert all((tmp_path / f"law.{kind}").stat().st_size > 1000 for kind in ("png", "svg"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"y": "accuracy"}, "no row has --y=accuracy; the metrics are loss"),
        ({"y": "loss", "x": "parameters"}, "parameters is no field of the rows; they are study, model"),
        ({"y": "loss", "x": "model"}, "--x=model is no number: vit"),
        ({"y": "loss", "where": "dataset=none"}, "no row has --y=loss; the metrics are none"),
        ({"y": "loss", "form": "chinchilla"}, "wants 2 inputs, N, D"),
        ({"y": "loss", "resamples": 0}, "--resamples and --delta must be positive"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(rows, flags, message):
    assert message in error_of(run([*command("laws", **flags), str(rows)]), 2)


def test_a_file_is_needed(tmp_path):
    assert "give one file of rows" in error_of(run(command("laws")), 2)
