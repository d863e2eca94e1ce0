"""The command on rows as the others write them."""

import csv
import dataclasses
import json
import re
import runpy
import shlex

import numpy as np
import pytest

from scaling.core.rows import read_rows
from scaling.studies.sweeps.plan import planned_runs
from tests.analysis.laws.examples import TRUTH, chinchilla, losses
from tests.commands import ROOT, call, command, error_of
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
    done = call([*line, str(rows)])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "law.json").read_text())
    assert found["form"] == "power"
    assert set(found["parameters"]) == {"a", "b", "c"}
    b = found["parameters"]["b"]
    assert b["low"] <= b["value"] <= b["high"]
    assert abs(b["value"] - 0.35) < 0.1
    assert "loss = a x^-b + c, 14 rows" in done.stdout
    assert "held out: the 4 largest" in done.stdout
    assert all((tmp_path / f"law.{kind}").stat().st_size > 1000 for kind in ("png", "svg", "pdf"))


def fit(*arguments):
    return call([*command("laws"), *map(str, arguments)])


def test_what_is_left_of_a_score_is_named_as_that_everywhere(rows, tmp_path):
    scores = tmp_path / "scores.jsonl"
    write(scores, [{**vars(r), "metric": "acc1", "value": 1 - r.value / 10} for r in read_rows(rows)])
    files = [f"--json={tmp_path / 'law.json'}", f"--figure={tmp_path / 'law'}"]
    done = fit(scores, "--y=acc1", "--error", "--form=line", "--at=1e9", "--resamples=50", *files)
    assert "1 - acc1 = a x^-b, 14 rows" in done.stdout
    assert "at 1e+09: 1 - acc1 = " in done.stdout
    found = json.loads((tmp_path / "law.json").read_text())
    assert (found["y"], found["error"]) == ("1 - acc1", True)
    assert "<!-- 1 - acc1 -->" in (tmp_path / "law.svg").read_text()  # the label of the axis


def test_wrong_input_is_one_line(rows):
    assert "no row has --y=accuracy; the metrics are loss" in error_of(
        call([*command("laws", y="accuracy"), str(rows)]), 2
    )


def test_an_ending_of_the_figure_is_not_doubled(rows, tmp_path):
    fit(rows, "--y=loss", "--form=line", "--resamples=10", f"--figure={tmp_path / 'law.png'}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["law.pdf", "law.png", "law.svg"]


@pytest.mark.parametrize("count", [4, 5])
def test_rows_too_few_for_a_criterion_make_a_file_that_other_programs_read(rows, tmp_path, count):
    few, out = tmp_path / "few.jsonl", tmp_path / "law.json"
    few.write_text("".join(rows.read_text().splitlines(keepends=True)[:count]))
    assert fit(few, "--y=loss", "--resamples=10", f"--json={out}").returncode == 0
    found = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["aicc_over_this"] == {}


WRONG = [
    ("--form=isoflop needs --x=parameters,samples", ["--form=isoflop"]),
    ("--at: has no effect with --form=isoflop", ["--form=isoflop", "--x=params,samples_seen", "--at=1e9"]),
    ("--group: has no effect with --form=isoflop", ["--form=isoflop", "--x=params,samples_seen", "--group=seed"]),
    ("--resamples=0: must be 1 or more", ["--resamples=0"]),
    ("--delta=nan: must be a finite number", ["--delta=nan"]),
    ("--x=low is not a number: it is empty in some rows", ["--x=low"]),
    ("--colour: needs a figure; give --figure too", ["--colour=seed"]),
    ("--allocate=abc: a positive number like 1e9", ["--form=chinchilla", "--allocate=abc"]),
    ("--allocate needs --form=chinchilla, not power", ["--allocate=1e18"]),
    ("--at=1e9: positive numbers like 1e9:2e6", ["--form=chinchilla", "--at=1e9"]),
    ("--at=nan: a positive number like 1e9", ["--at=nan"]),
]


def test_wrong_flags_are_said_before_anything_is_fitted(rows):
    for message, wrong in WRONG:
        assert message in error_of(fit(rows, "--y=loss", *wrong), 2)


def test_a_prediction_too_far_is_refused_after_all_else_is_written(rows, tmp_path):
    files = {"json": tmp_path / "law.json", "figure": tmp_path / "law"}
    done = call([*command("laws", y="loss", at="2e9,1e12", resamples=50, colour="parametrization", **files), str(rows)])
    message = error_of(done, 2)
    assert "--at=1e12 is not predicted: that is 1e+03 times beyond what was measured" in message
    assert "at 2e+09: " in done.stdout
    assert [p["inputs"] for p in json.loads((tmp_path / "law.json").read_text())["predictions"]] == [[2e9]]
    assert (tmp_path / "law.svg").exists()


@pytest.mark.long
def test_a_budget_far_beyond_the_rows_is_not_divided(tmp_path):
    x, y = losses("chinchilla", noise=0.002)
    file = tmp_path / "rows.jsonl"
    write(file, [{"params": round(n), "samples_seen": round(d), "value": v} for (n, d), v in zip(x, y, strict=True)])
    flags = [file, file, "--y=loss", "--x=params,samples_seen", "--form=chinchilla", "--resamples=20"]
    message = error_of(fit(*flags, "--allocate=1e21,1e27", f"--json={tmp_path / 'law.json'}"), 2)
    assert re.search(r"--allocate=1e27 is not divided: that is .* times beyond what was measured", message)
    found = json.loads((tmp_path / "law.json").read_text())
    assert (len(found["allocations"]), found["rows"]) == (1, 64)  # the file that was given twice counts once
    assert fit(*flags, "--allocate=1e27", "--extrapolate").returncode == 0


def write(file, changes):
    rows = [dataclasses.replace(ROW, **{"metric": "loss", **change}) for change in changes]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))


SWEEPS = sorted(file.name for file in (ROOT / "configs" / "sweeps").glob("*.py"))
WITH_LAWS = [name for name in SWEEPS if "scaling.laws" in (ROOT / "configs" / "sweeps" / name).read_text()]


@pytest.mark.parametrize(
    "name", [name if name == "isoflop.py" else pytest.param(name, marks=pytest.mark.long) for name in WITH_LAWS]
)
def test_the_command_in_the_description_of_a_sweep_works_on_its_rows(name, tmp_path):
    sweep = runpy.run_path(str(ROOT / "configs" / "sweeps" / name))
    _, plan = planned_runs(ROOT / "configs" / "sweeps" / name, sweep["get_config"]())
    rng, changes = np.random.default_rng(0), []
    for planned in plan:
        row, part = planned.row, re.search(r"\[:(\d+)\]", planned.config.data.split)
        seen = int(part[1]) if part else row.samples_seen
        loss = chinchilla(np.array([[row.params_total, seen]]), **TRUTH["chinchilla"][2])[0] * np.exp(
            rng.normal() / 1e3
        )
        changes += [{**vars(row), "images": seen, "metric": m, "value": loss} for m in ("eval_loss", "best_eval_loss")]
    lines = [line.split("scaling.laws ")[1] for line in sweep["__doc__"].splitlines() if "scaling.laws" in line]
    for line in lines:
        file, *written = shlex.split(line)
        written = [flag.replace("--figure=", f"--figure={tmp_path}/") for flag in written]
        write(tmp_path / "rows.jsonl", changes)
        done = fit(tmp_path / "rows.jsonl", *written, "--resamples=20", f"--json={tmp_path / 'law.json'}")
        assert file.endswith("rows.jsonl")
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "law.json").read_text())["parameters"]
        if name == "isoflop.py":
            assert re.match(rf"N_opt ~ C\^exponent, {len(plan)} rows of eval_loss, \d+ budgets", done.stdout)


def test_a_file_is_needed(tmp_path):
    assert "give a file of rows" in error_of(call(command("laws")), 2)


def test_predictions_are_printed_and_written(rows, tmp_path):
    done = call([*command("laws", y="loss", at="2e8,3e9", resamples=50, json=tmp_path / "law.json"), str(rows)])
    assert done.returncode == 0, done.stderr
    assert "at 3e+09: " in done.stdout
    assert "3 times beyond what was measured" in done.stdout
    assert [p["inputs"] for p in json.loads((tmp_path / "law.json").read_text())["predictions"]] == [[2e8], [3e9]]


@pytest.mark.long
def test_rows_that_no_law_can_have_are_left_out_aloud(rows, tmp_path):
    some = tmp_path / "rows.jsonl"
    first = json.loads(rows.read_text().splitlines()[0])
    some.write_text(rows.read_text() + json.dumps({**first, "value": -0.1, "seed": 1}) + "\n")
    done = call([*command("laws", y="loss", resamples=20), str(some)])
    assert "1 rows are left out" in done.stdout
    assert ", 14 rows" in done.stdout


MISFITTING = ROOT.parent / "shared" / "data" / "laws" / "misfitting_last_ckpt_only.csv"


def misfitting(file):
    """The runs of (Mis)fitting (Li et al., 2502.18969), 261 of 240 models, lengths and learning rates."""
    if not MISFITTING.exists():
        pytest.skip(f"needs {MISFITTING}")
    with MISFITTING.open() as f:
        runs = list(csv.DictReader(f))
    write(file, [
        {"params": int(float(r["N"])), "samples_seen": int(float(r["D"])), "base_lr": float(r["peak_lr"]),
         "value": float(r["loss"])} for r in runs
    ])  # fmt: skip


@pytest.mark.long
def test_of_published_runs_repetitions_stay_and_learning_rates_can_be_chosen(tmp_path):
    misfitting(tmp_path / "rows.jsonl")
    asked = [tmp_path / "rows.jsonl", "--y=loss", "--x=params,samples_seen", "--form=chinchilla", "--resamples=20"]
    done = fit(*asked)
    assert "8 duplicate rows are ignored, equal in value too" in done.stdout
    assert "24 rows measure what others do and differ in value, and are kept as repetitions" in done.stdout
    assert ", 253 rows" in done.stdout
    assert "rows of different base_lr at the same inputs" in done.stdout
    best = fit(*asked, "--best=base_lr")
    assert "rows of different base_lr" not in best.stdout


def test_a_table_of_other_people_is_fitted_by_its_own_names(tmp_path):
    file, out = tmp_path / "theirs.csv", tmp_path / "law.json"
    lines = [f"{n},{100 * (1 - 3 * n**-0.25)},{'bad' if n > 5e8 else 'ok'}\n" for n in np.geomspace(1e6, 1e9, 10)]
    file.write_text("Model Size,acc,state\n" + "".join(lines) + "2e6,,ok\n")
    asked = [
        "--column=N=`Model Size`",
        "--column=err=1-acc/100",
        "--where=state=ok",
        "--where=N<4e8",
        "--x=N",
        "--y=err",
    ]
    done = fit(file, *asked, "--form=line", "--resamples=10", f"--json={out}")
    assert done.returncode == 0, done.stderr
    assert "warning: --where=state=ok --where=N<4e8 keeps 9 of 11 rows" in done.stdout
    assert "err is empty in 1 of 9 rows (theirs.csv, row 11)" in done.stdout
    found = json.loads(out.read_text())
    assert found["units"] == {"N": "`Model Size`", "err": "1-acc/100"}
    assert abs(found["parameters"]["b"]["value"] - 0.25) < 1e-9
    assert "there is no such column; did you mean N" in error_of(fit(file, *asked, "--x=n"), 2)


OVER = [
    ("laws F --x=N --y=loss --json=F", "--json", "an input"),
    ("laws F --x=N --y=loss --figure=F", "--figure", "an input"),
    ("report F --output=F", "--output", "an input"),
    ("score --task=detection --predictions=D --truth=D --images=F --json=F", "--json", "a file in the --predictions"),
    ("prune --checkpoint=D --output=D/new --json=F", "--json", "a file in the --checkpoint"),
    ("convert --checkpoint=D/none --to=timm_vit --rows=F --output=F", "--output", "the --rows"),
]


@pytest.mark.parametrize(("written", "flag", "name"), OVER)
def test_a_file_that_is_read_is_not_written_over(written, flag, name, tmp_path):
    file = tmp_path / "f.csv"
    file.write_text("N,loss\n1,3\n2,2\n")
    word, *arguments = re.sub(r"\bD\b", str(tmp_path), re.sub(r"\bF\b", str(file), written)).split()
    error = error_of(call(command(word, *arguments)), 2)
    assert error == f"{flag}={file} is {name}, which would be lost; choose another file"
    assert file.read_text().startswith("N,loss")
