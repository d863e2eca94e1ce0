"""The command measures, draws, and resumes where it was killed."""

import dataclasses
import itertools
import json
import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from scaling.core.config import find_config, from_config_dict
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.rows import read_rows, write_rows
from scaling.studies.journal import Journal
from scaling.studies.slimming import study
from scaling.studies.slimming.cells import SlimmingStudyConfig, cells
from tests.commands import call, command, error_of

FLAGS = {
    "config": "slim.py",
    "config.widths": "(0.5,1.0)",
    "config.datasets.scenes.source": "scenes?size=16&count=60",
    "config.components": 4,
    "config.draws": 20,
}


def test_rows_and_figures_come_out_and_a_second_run_measures_nothing(uninterrupted_run, tmp_path):
    line = command("slim", "--name=tiny", checkpoint=uninterrupted_run[0], output=tmp_path, **FLAGS)
    first = call(line)
    assert first.returncode == 0, first.stderr
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row.model for row in rows} == {"tiny", "random_weights"}
    assert {row.step for row in rows if row.model == "tiny"} == {40}
    assert json.loads((tmp_path / "config.json").read_text())["widths"] == [0.5, 1.0]
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {
        f"{name}.{kind}" for name in ("curves_scenes_knn", "spectra_scenes") for kind in ("png", "svg", "pdf")
    }
    assert "### scenes, knn: macro accuracy\n\n|  | s = 0.5 | s = 1 |" in (tmp_path / "tables.md").read_text()
    planned = call([*line, "--dry_run"])
    assert "0 encoders to measure" in planned.stdout
    assert "rows " not in planned.stdout.splitlines()[-1][:5]
    others = [dataclasses.replace(row, model="elsewhere") for row in rows if row.probe == "knn"]
    others += [dataclasses.replace(row, model="astray", dataset="another") for row in rows]
    write_rows(tmp_path / "others.jsonl", others)
    second = call([*line, f"--beside={tmp_path / 'others.jsonl'}"])
    assert second.returncode == 0, second.stderr
    figure = (tmp_path / "figures" / "curves_scenes_knn.svg").read_text()
    assert "elsewhere first" in figure
    assert "astray" not in figure
    assert "0 encoders to measure" in second.stdout
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_a_plan_measures_nothing_and_makes_no_folder(uninterrupted_run, tmp_path):
    output = tmp_path / "new"
    planned = call(command("slim", "--plan", checkpoint=uninterrupted_run[0], output=output, **FLAGS))
    assert planned.returncode == 0, planned.stderr
    settings = from_config_dict(SlimmingStudyConfig, runpy.run_path(str(find_config("slim.py")))["get_config"]())
    count = len(list(cells(dataclasses.replace(settings, widths=(0.5, 1.0)), 2)))
    assert planned.stdout == f"{count} encoders to measure, 0 rows are there already\n"
    half = call(command("slim", "--plan", checkpoint=uninterrupted_run[0], output=output, task=1, tasks=2, **FLAGS))
    assert half.stdout.startswith(f"{count // 2} encoders to measure")
    assert not output.exists()


@pytest.mark.long
def test_the_score_of_every_depth_is_one_command_that_resumes(uninterrupted_run, tmp_path):
    flags = {"config.datasets.scenes.source": "scenes?size=16&count=200", "config.datasets.scenes.limit": 80}
    flags |= {"config.finetune.epochs": 1.0, "config.finetune.warmup_epochs": 0.0, "config.draws": 50}
    study = {"checkpoint": uninterrupted_run[0], "config": "depth.py", "output": tmp_path, **flags}
    done = call(command("slim", **study))
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "rows.jsonl")
    scored = [r for r in rows if r.metric == "macro_accuracy" and r.mode == "layers"]
    found = {(r.probe, r.depth_ratio, r.objective) for r in scored}
    assert found == set(itertools.product(("knn", "linear", "finetune"), (0.5, 1.0), ("mae", "none")))
    entries = (tmp_path / "jobs.jsonl").read_text().splitlines()
    assert len(entries) == 1 + 2 * 2  # the stem, and both depths of both encoders
    kept = [r for r in rows if not (r.depth_ratio == 0.5 and r.objective == "mae" and r.mode == "layers")]
    write_rows(tmp_path / "rows.jsonl", kept)
    assert call(command("slim", **study)).returncode == 0
    again = read_rows(tmp_path / "rows.jsonl")
    assert {row.identity: row.value for row in again} == {row.identity: row.value for row in rows}


def test_images_of_ones_own_need_no_config_file():
    settings = runpy.run_path(str(find_config("slim.py")))["get_config"]
    c = from_config_dict(SlimmingStudyConfig, settings("mine=scenes?size=48"))
    c.check()
    assert {name: dataset.source for name, dataset in c.datasets.items()} == {"mine": "scenes?size=48"}
    for wrong in ("folder:tiles", "mine=", "my tiles=folder:tiles"):
        with pytest.raises(UserError, match=rf"--config=slim.py:{wrong}: give NAME=SOURCE, such as slim.py:mine="):
            settings(wrong)


def test_tasks_that_begin_together_all_keep_their_encoders(tmp_path, monkeypatch):
    def slowly(path, content):
        time.sleep(0.05)  # so that all have read the file before the first has written it
        write_whole(path, content)

    def begin(name):
        study.keep_encoder(tmp_path, SimpleNamespace(step=1, identity=name), name, Journal(tmp_path))

    monkeypatch.setattr(study, "write_whole", slowly)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(begin, "abcd"))
    known = json.loads((tmp_path / "encoders.json").read_text())
    assert known == {f"{name}, step 1": name for name in "abcd"}
    assert [file.name for file in tmp_path.iterdir()] == ["encoders.json"]


def test_wrong_input_is_one_line(uninterrupted_run, tmp_path):
    for flags, message in (
        (
            {"checkpoint": uninterrupted_run[0], "output": tmp_path},
            "give --checkpoint=DIR, --config=FILE and --output=DIR",
        ),
        (
            {**FLAGS, "checkpoint": uninterrupted_run[0], "output": tmp_path, "task": 2, "tasks": 2},
            "--task=2: must be from 0 to 1, with --tasks=2",
        ),
        ({**FLAGS, "checkpoint": tmp_path, "output": tmp_path}, "has no folder `checkpoints`"),
        (
            {**FLAGS, "checkpoint": uninterrupted_run[0], "output": "/proc/none"},
            "--output=/proc/none cannot be written to",
        ),
        (
            {**FLAGS, "checkpoint": uninterrupted_run[0], "output": tmp_path, "config.probes": "('svm',)"},
            "probes: unknown 'svm'",
        ),
    ):
        assert message in error_of(call(command("slim", **flags)), 2)
