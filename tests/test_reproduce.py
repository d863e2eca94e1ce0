"""Reproduction of a paper's table: the plan, a small real run from a hub, resumed, and refusals."""

import dataclasses
import re
import signal
import time
from pathlib import Path

import pytest
from etils import epath

from scaling.core.rows import read_rows, write_rows
from scaling.models.variants import PUBLIC
from scaling.studies.reproduction.record import Record
from tests.commands import call, command, error_of, finish, run, start
from tests.geobench import write_eurosat
from tests.hub import serving
from tests.interop.torch_files import save, tensor
from tests.interop.torch_layout import draw, prithvi

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NANO = DATA / "weights" / "galileo_nano"
needs_data = pytest.mark.skipif(
    not (NANO.is_dir() and (DATA / "eurosat").is_dir()), reason="needs ../shared/data/weights and eurosat"
)
SMALL = {"models": "galileo_nano", "time": "2021-07-15", "patch_size": 8, "image_size": 16, "bands": "B02,B03,B04"}


def reproduce(data, output, *words, **flags):
    given = {"paper": "hackel2026", "datasets": "m-eurosat", "data": data, "output": output, **flags}
    return command("reproduce", *words, **given)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with one set in GEO-Bench's layout, of two images of each class and split."""
    folder = tmp_path_factory.mktemp("geobench")
    write_eurosat(DATA / "eurosat", folder / "m-eurosat", 2)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory, data):
    nano = {f"models/nano/{name}": (NANO / name).read_bytes() for name in ("encoder.pt", "config.json")}
    sets = {f"m-eurosat/{file.name}": file.read_bytes() for file in (data / "m-eurosat").iterdir()}
    with serving({"nasaharvest/galileo": nano, "acme/sets": sets}, str(tmp_path_factory.mktemp("cache"))) as served:
        yield served


@needs_data
def test_a_plan_says_what_would_be_downloaded_and_computed_and_does_nothing(hub, data, tmp_path):
    asked = len(hub.asked)
    models = {"models": "galileo_nano,dofa_base,prithvi_v2_300m,terramind_base", "time": "2021-07-15"}
    done = call(reproduce(data, tmp_path / "out", "--plan", widths="0.1,1", **models))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    size = (NANO / "encoder.pt").stat().st_size / 1e6
    assert lines[1].endswith(f"models/nano/encoder.pt: 1 file, {size:.1f} MB; licence MIT")
    assert "galileo/m-eurosat" not in done.stdout
    assert "dofa_base: download hf://torchgeo/dofa/" in done.stdout
    assert "torchgeo/dofa does not exist, or is private" in done.stdout  # on this hub
    assert "no B08, B05, B06, B07, B11, B12, B8A; --fill=nearest" in done.stdout
    assert "its own ViT-B" in done.stdout
    assert f"{size:.1f} MB to download" in lines[-1]
    filled = call(
        reproduce(data, tmp_path / "out", "--plan", "--fill=nearest", widths="0.1,1", models="prithvi_v2_300m")
    )
    assert "2 encoders to measure, 40 images, " in filled.stdout
    # 59.85 GMAC of the paper and 0.1032 of them, with the attention products, twice: TFLOP of 40 images
    work = float(filled.stdout.splitlines()[-1].split(" TFLOP")[0].rpartition(" ")[2])
    assert work == pytest.approx(2 * 59.85e9 * 1.1032 * 40 / 1e12, rel=0.05)
    assert "memory" not in done.stdout + filled.stdout
    large = call(reproduce(data, tmp_path / "out", "--plan", **SMALL | {"image_size": 400_000}))
    assert "40 images of 400000 pixels, which do not fit into memory: 76,800.0 GB of " in large.stdout
    linear = call(reproduce(data, tmp_path / "out", "--plan", **SMALL, probes="linear"))
    assert "60 images" in linear.stdout
    elsewhere = call(reproduce("hf://datasets/acme/sets", tmp_path / "out", "--plan", **SMALL, widths="1"))
    assert "m-eurosat: download hf://datasets/acme/sets/m-eurosat: 63 files" in elsewhere.stdout
    assert not (tmp_path / "out").exists()
    assert len(hub.asked) == asked  # nothing was downloaded, see the run below


@needs_data
@pytest.mark.long
def test_a_small_real_run_from_the_hub_is_resumed_and_extended(hub, data, tmp_path):
    line, asked = reproduce("hf://datasets/acme/sets", tmp_path, widths="0.5,1", **SMALL), len(hub.asked)
    done = call(line)
    assert done.returncode == 0, done.stderr
    assert len(hub.asked) - asked >= 64  # the set and the weights
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(r.study, r.model, r.dataset) for r in rows} == {("hackel2026", "galileo_nano", "m-eurosat")}
    table = (tmp_path / "table.md").read_text()
    (score,) = [r for r in rows if (r.metric, r.width_ratio) == ("macro_accuracy", 1.0)]
    assert (
        f"| galileo_nano | 1 | 100.0% | {score.value:.4f} ({score.low:.4f} to {score.high:.4f}) | not published"
        in table
    )
    assert "licence MIT; B02, B03, B04; 16 pixels" in table
    assert "* galileo_nano on m-eurosat: normalised by the statistics of the pretraining" in table
    assert "all images. Not said" in table
    assert "trial" not in table
    assert table in done.stdout
    assert (tmp_path / "figures" / "curves_m-eurosat_knn.png").is_file()
    write_rows(tmp_path / "rows.jsonl", [r for r in rows if r.width_ratio != 0.5])
    assert "1 encoders to measure" in call(line).stdout
    again = read_rows(tmp_path / "rows.jsonl")
    assert {r.identity: r.value for r in again} == {r.identity: r.value for r in rows}
    assert "0 encoders to measure" in call([*line, "--plan"]).stdout
    assert "was started with limit 0, but now it is 5" in error_of(call([*line, "--plan", "--limit=5"]), 2)
    for flags, said in (
        ({"limit": 5}, "was started with limit 0, but now it is 5"),
        ({"time": "2021-01-15"}, "--time=2021-01-15: "),
        ({"data": data}, f"was started with data hf://datasets/acme/sets, but now it is {data}"),
    ):
        asked = {"data": "hf://datasets/acme/sets", "output": tmp_path, **SMALL, **flags}
        other = reproduce(widths="0.5,1", **asked)
        assert said in error_of(call(other), 2)


@needs_data
def test_a_trial_and_the_statistics_are_stated_and_lines_of_earlier_calls_stay(data, tmp_path):
    record = Record(epath.Path(tmp_path))
    record.add("models", "earlier", "earlier: w.pt")
    record.add("left_out", "earlier on m-so2sat", "no B10")
    record.add("left_out", "galileo_nano on m-eurosat", "no B8A")
    record.add("left_out", "galileo_nano on m-eurosat", "no B11")
    flags = SMALL | {"bands": "B05,B06,B07", "fill": "nearest", "limit": 10, "widths": "0.4,1"}
    done = call(reproduce(data, tmp_path, weights=DATA / "weights", **flags))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    assert "**A trial, no result: at most 10 images of each split.**" in table
    said = "B04 stands for B07; all bands normalised by the statistics of the data set, as the pretraining has none of "
    assert f"* galileo_nano on m-eurosat: B04 stands for B05, B04 stands for B06, {said}B04\n" in table
    assert "* earlier: w.pt\n* galileo_nano: encoder.pt" in table
    assert "* Left out: earlier on m-so2sat: no B10\n" in table
    assert "B11" not in table
    assert "* m-eurosat, knn: s = 0.4\n" in table
    assert "A trial, no result" in (tmp_path / "figures" / "curves_m-eurosat_knn.svg").read_text()


@needs_data
@pytest.mark.long
def test_a_model_of_the_paper_stands_beside_its_numbers(data, tmp_path, monkeypatch):
    """With random weights of the keys and the file name of Prithvi 300M, much smaller."""
    arrays = prithvi(draw(width=192, bands=6, patch=16, grid=14), dates=4)
    save(tmp_path / "Prithvi_EO_V2_300M.pt", {key: tensor(x) for key, x in arrays.items()})
    flags = {"models": "prithvi_v2_300m", "weights": tmp_path, "widths": "0.1,1"}
    known = PUBLIC["prithvi_eo_v2_300"]
    smaller = dataclasses.replace(known.config, width=192, depth=2, mlp=48)
    monkeypatch.setitem(PUBLIC, "prithvi_eo_v2_300", dataclasses.replace(known, config=smaller))
    lacks = "error: nothing can be measured: prithvi_eo_v2_300 on m-eurosat: .* has no B8A, B11, B12; --fill=nearest"
    assert re.search(lacks, call(reproduce(data, tmp_path / "none", **flags)).stderr)
    done = call(reproduce(data, tmp_path / "out", fill="nearest", **flags))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    rows = {r.width_ratio: r for r in read_rows(tmp_path / "out" / "rows.jsonl") if r.metric == "macro_accuracy"}
    for width, theirs in ((0.1, 0.7990), (1.0, 0.8306)):  # of the project page
        r = rows[width]
        cells = f"{r.value:.4f} ({r.low:.4f} to {r.high:.4f}) | {theirs:.4f} | {r.value - theirs:+.4f} "
        cells += f"({r.low - theirs:+.4f} to {r.high - theirs:+.4f})"
        assert cells in line_of(lines, f"{width:g}")
    assert "| 0.9620 |" in line_of(lines, "0.1")  # kept, theirs
    assert any(
        line.startswith("Chosen here: distance cosine, pool mean, names corrected, fill nearest") for line in lines
    )
    stand = "B04 stands for B8A, B04 stands for B11, B04 stands for B12"
    assert f"* prithvi_eo_v2_300 on m-eurosat: {stand}; normalised by the statistics of the pretraining" in lines
    assert "(published)" in (tmp_path / "out" / "figures" / "curves_m-eurosat_knn.svg").read_text()


def line_of(lines, width):
    return next(line for line in lines if line.startswith(f"| prithvi_eo_v2_300 | {width} |"))


@needs_data
@pytest.mark.long
def test_a_run_that_is_killed_gives_the_same_rows(data, tmp_path):
    flags = {**SMALL, "image_size": 64, "weights": DATA / "weights", "widths": "0.1,0.25,0.5,0.75,1"}
    whole = run(reproduce(data, tmp_path / "whole", **flags))
    assert whole.returncode == 0, whole.stderr
    process, file = start(reproduce(data, tmp_path / "cut", **flags)), tmp_path / "cut" / "rows.jsonl"
    while process.poll() is None and not (file.exists() and file.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert 0 < len(read_rows(file)) < len(read_rows(tmp_path / "whole" / "rows.jsonl"))
    done = run(reproduce(data, tmp_path / "cut", **flags))
    assert done.returncode == 0, done.stderr
    found = [{r.identity: r.value for r in read_rows(tmp_path / name / "rows.jsonl")} for name in ("whole", "cut")]
    assert found[0] == found[1]


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    flags = {"data": tmp_path / "empty", "output": tmp_path / "out"}
    for wrong, said in (
        ({"paper": "hackel206"}, "--paper=hackel206: its numbers are not included; did you mean hackel2026"),
        ({"models": "dofa_bse"}, "--models=dofa_bse: neither in the paper nor in the table of public weights; did you"),
        ({"models": "dofa_base,dofa_base"}, "dofa_base is named twice"),
        ({"models": "dofa_base", "time": "2021-07-15"}, "--time: none of dofa_base uses it"),
        ({"datasets": "m-euro"}, "--datasets=m-euro: not one that can be computed here; did you mean m-eurosat"),
        ({"datasets": "m-cashew-plant"}, "the paper has it as a task of another kind"),
        ({"widths": "0.1,2"}, "--widths=0.1,2: must be numbers above 0, up to 1"),
        ({"probes": "finetune"}, "--probes=finetune: must be one of"),
        ({}, f"--data={tmp_path}/empty: there is no m-eurosat in it"),
    ):
        done = call(command("reproduce", **({"paper": "hackel2026"} | flags | wrong)))
        assert said in error_of(done, 2)
        assert not (tmp_path / "out").exists()
    assert "give --paper, one of hackel2026" in error_of(call(command("reproduce")), 2)
