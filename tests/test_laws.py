"""The command on rows as the others write them."""

import dataclasses
import json

import pytest

from tests.analysis.laws.examples import losses
from tests.commands import command, error_of, run
from tests.rows import ROW


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    x, y = losses("power", noise=0.005)
    made = [dataclasses.replace(ROW, params=round(n), metric="loss", value=v) for n, v in zip(x, y, strict=True)]
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


def test_wrong_input_is_one_line(rows):
    wrong = {
        "no row has --y=accuracy; the metrics are loss": {"y": "accuracy"},
        "--at=1e12 is not predicted: that is 1e+03 times beyond what was measured": {"y": "loss", "at": "1e12"},
        "--form=isoflop wants --x=parameters,samples": {"y": "loss", "form": "isoflop"},
        "--resamples and --delta must be positive": {"y": "loss", "resamples": 0},
    }
    for message, flags in wrong.items():
        assert message in error_of(run([*command("laws", **flags), str(rows)]), 2)


def test_a_file_is_needed(tmp_path):
    assert "give a file of rows" in error_of(run(command("laws")), 2)


def test_predictions_are_printed_and_written(rows, tmp_path):
    done = run([*command("laws", y="loss", at="2e8,3e9", resamples=50, json=tmp_path / "law.json"), str(rows)])
    assert done.returncode == 0, done.stderr
    assert "at 3e+09: " in done.stdout
    assert "3 times beyond what was measured" in done.stdout
    assert [p["inputs"] for p in json.loads((tmp_path / "law.json").read_text())["predictions"]] == [[2e8], [3e9]]


@pytest.mark.long
def test_rows_that_no_law_can_have_are_left_out_aloud(rows, tmp_path):
    some = tmp_path / "rows.jsonl"
    first = json.loads(rows.read_text().splitlines()[0])
    some.write_text(rows.read_text() + json.dumps({**first, "value": -0.1, "seed": 1}) + "\n")
    done = run([*command("laws", y="loss", resamples=20), str(some)])
    assert "1 rows are left out" in done.stdout
    assert ", 14 rows" in done.stdout
