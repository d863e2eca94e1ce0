"""Published numbers as rows: all those in the notes, parsed a second time; and their consequences."""

import json
import re
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from scaling.core.rows import read_rows

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT.parent / "shared" / "reference"
FOLDER = ROOT / "results" / "published"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs ../shared/reference")

# File, first line of a table, columns of it that hold numbers, its unit, and how many rows they are.
TABLES = [
    *(("slimming", rf"\*\*{name} \(.*k-NN\)\*\*", slice(1, 7), 1, 60) for name in ("m-eurosat", "m-bigearthnet")),
    *(("slimming", rf"\*\*{name} \(.*k-NN\)\*\*", slice(1, 7), 1, 60) for name in ("m-brick-kiln", "m-so2sat")),
    ("slimming", r"\| model \| full GMAC", slice(1, 6), 1, 10),
    ("slimming", r"\*\*Dense tasks, mIoU", slice(1, 4), 1, 48),
    ("slimming", r"Fig\. 1a", slice(1, 11), 1, 40),
    ("slimming", r"Fig\. 1b", slice(1, 11), 1, 20),
    ("slimming", r"\| model \| m-eurosat linear", slice(1, 5), 1, 80),
    ("slimming", r"\| split \| DOFA-b", slice(1, 4), 1, 30),
    ("slimming", r"\| set \| MAE regular", slice(1, 5), 1, 128),
    ("slimming", r"\| network \| 1\.0", slice(1, 5), 100, 16),
    ("slimming", r"\| dim \| 8", slice(1, 10), 100, 27),
    ("billion_scale", r"\| fixed complexity", slice(1, 5), 100, 12),
    ("billion_scale", r"\| model \| DIOR-R", slice(1, 5), 100, 39),
]


def numbers_of(file, first, columns):
    """From one table of the notes, every decimal number in some of its columns."""
    lines = (REFERENCE / f"{file}.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(first, line))
    at = next(i for i in range(at, len(lines)) if lines[i].startswith("|---"))
    found = []
    for line in lines[at + 1 :]:
        if not line.startswith("|"):
            break
        for cell in line.split("|")[1:-1][columns]:
            found += [float(x) for x in re.findall(r"\d*\.\d+|\d+", re.sub(r"\(OA.*\)", "", cell))]
    return found


@needs_reference
@pytest.mark.parametrize(("file", "first", "columns", "unit", "count"), TABLES, ids=lambda x: str(x)[:24])
def test_every_number_of_a_table_is_a_row(file, first, columns, unit, count):
    wanted = Counter(round(x / unit, 6) for x in numbers_of(file, first, columns))
    assert wanted.total() == count
    there = Counter(round(row.value, 6) for row in read_rows(FOLDER / f"{file}.rows.jsonl"))
    assert not {x: n for x, n in wanted.items() if there[x] < n}


@needs_reference
def test_the_rows_are_what_the_notes_say_today(tmp_path):
    build = runpy.run_path(str(FOLDER / "build.py"))
    for name in build["FILES"]:
        assert build["rows"](REFERENCE, name) == read_rows(FOLDER / f"{name}.rows.jsonl"), name


def test_every_row_says_who_published_it_and_how_sure_that_is():
    rows = [row for file in sorted(FOLDER.glob("*.rows.jsonl")) for row in read_rows(file)]
    assert len(rows) == len({row.identity for row in rows}) == 750
    assert {row.certainty for row in rows} == {"published", "checked numerically", "unverified (from memory)"}
    assert all(row.source and row.device == "published" and row.value is not None for row in rows)
    assert all(0 < row.value < 1.1 for row in rows if row.metric not in ("gmac", "params"))


@pytest.fixture(scope="module")
def knn():
    """Scores by (model, set, width), from lines of JSON, parsed without this project's code."""
    lines = (FOLDER / "slimming.rows.jsonl").read_text().splitlines()
    rows = [r for r in map(json.loads, lines) if r["study"] == "slimmable_rsfms" and r["probe"] == "knn"]
    return {(r["model"], r["dataset"], r["width_ratio"]): r["value"] for r in rows}


def test_known_cells_stand_where_they_belong(knn):
    assert knn["dofa_base", "m-eurosat", 0.001] == 0.7134
    assert knn["panopticon_vitb14", "m-so2sat", 1.0] == 0.5477
    assert knn["prithvi_eo_v2_600", "m-brick-kiln", 0.25] == 0.9409
    assert knn["copernicus_fm_base", "m-bigearthnet", 0.1] == 0.4829


@pytest.fixture(scope="module")
def analysis():
    return runpy.run_path(str(ROOT / "results" / "reanalysis" / "analyse.py"))


def test_means_of_the_reanalysis_are_those_of_a_plain_loop(knn, analysis):
    chance = {"m-eurosat": 0.1, "m-bigearthnet": 2.9 / 43, "m-brick-kiln": 0.5, "m-so2sat": 1 / 17}
    models = sorted({model for model, *_ in knn})
    assert len(models) == 10
    raw = [knn[m, d, 0.001] / knn[m, d, 1.0] for m in models for d in chance]
    above = [(knn[m, d, 0.001] - c) / (knn[m, d, 1.0] - c) for m in models for d, c in chance.items()]
    text = (ROOT / "results" / "reanalysis" / "README.md").read_text()
    assert f"| raw | {sum(raw) / 40:.3f} |" in text
    assert f"| above chance | {sum(above) / 40:.3f} |" in text
    assert f"{sum(x > 0.71 for x in raw)} of 40 cells" in text
    rows = read_rows(FOLDER / "slimming.rows.jsonl")
    small, full = (analysis["scores"](rows, width, models) for width in (0.001, 1.0))
    np.testing.assert_allclose((small / full).ravel(), raw)
    for width, share in ((0.1, 31), (0.25, 52), (0.5, 73)):
        kept = sum(knn[m, d, width] - knn[m, d, 0.001] for m in models for d in chance)
        kept /= sum(knn[m, d, 1.0] - knn[m, d, 0.001] for m in models for d in chance)
        assert round(100 * kept) == share
    assert "0.1, 0.25 and 0.5 keep 31, 52 and 73 %" in text


def test_crossed_effects_find_what_a_table_was_made_of(analysis):
    rng = np.random.default_rng(0)
    shape, found = (60, 50), []
    for _ in range(20):
        table = rng.normal(0, 0.3, (60, 1)) + rng.normal(0, 0.1, (1, 50)) + rng.normal(0, 0.05, shape)
        found.append(analysis["crossed_effects"](table))
    np.testing.assert_allclose(np.mean(found, axis=0), [0.3, 0.1, 0.05], rtol=0.1)
    additive = np.arange(3.0)[:, None] + np.zeros((1, 4))
    np.testing.assert_allclose(analysis["crossed_effects"](additive), [1, 0, 0], atol=1e-9)


def test_a_family_is_drawn_whole(analysis):
    models = ["dofa_base", "dofa_large", "terramind_v1_base"]
    means = analysis["family_bootstrap"](np.array([[0.0], [0.0], [1.0]]), models, draw_sets=False)
    # one of two families twice: all zero, or all one; both once: a third, as the larger one counts twice
    assert set(np.round(means, 6)) == {0.0, 0.333333, 1.0}
    assert np.mean(means == 0) == pytest.approx(0.25, abs=0.02)
