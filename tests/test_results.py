"""Statements of the studies in `results/` equal the output of their scripts for the rows beside them."""

import contextlib
import functools
import io
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from scaling.core.rows import read_rows
from scaling.studies.checking import recompute
from tests.rows import decoded

RESULTS = Path(__file__).parents[1] / "results"


@functools.cache
def printed(script):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(RESULTS / script), run_name="__main__")
    return out.getvalue()


def test_the_slimming_study_says_what_its_rows_say():
    out, text = printed("slimming_hurricane/verdicts.py"), (RESULTS / "slimming_hurricane/README.md").read_text()
    kept = re.findall(r"above (nothing \(raw\)|chance|depth_0|band_statistics|random weights) .*?: (\d+ / \d+)", out)
    names = {"nothing (raw)": "nothing (raw)", "chance": "chance", "depth_0": "depth 0, the encoder without blocks"}
    names |= {"band_statistics": "band statistics", "random weights": "random weights, full width"}
    for (name, knn), (_, linear) in zip(kept[:5], kept[5:10], strict=True):
        assert f"| {names[name]} | {knn} | {linear} |" in text
    front = (RESULTS.parent / "README.md").read_text()
    for name, words in (("chance", "chance"), ("depth_0", "the encoder without its blocks"), ("random weights",) * 2):
        knn, linear = (shares for found, shares in kept[:10] if found == name)
        assert f"| {words} | {knn} % | {linear} % |" in front
    stand = re.findall(r"^    (\w+) (\w+) s = ([\d.]+): (\S+) \(.*, p (\S+)$", out, re.MULTILINE)
    bold = re.findall(r"\*\*(\+[\d.]+)\*\* \(", text[: text.index("## After fine-tuning")])
    assert sorted(bold) == sorted(gain for *_, gain, p in stand if float(p) < 0.05)
    correlations = dict(re.findall(r"(mean_feature_correlation|relative_error) +knn +(\S+) over 90", out))
    assert correlations == {"mean_feature_correlation": "-0.79", "relative_error": "-0.66"}
    assert "mean feature correlation -0.79, distance -0.66" in " ".join(text.split())


def test_the_study_of_width_and_depth_says_what_its_rows_say():
    out, text = printed("width_depth/verdicts.py"), (RESULTS / "width_depth/README.md").read_text()
    against = re.findall(r"^  (\d+) +\+([\d.]+) \(([+-][\d.]+) to ([+-][\d.]+)\) .*Holm ([\d.]+)", out, re.MULTILINE)
    assert [width for width, *_ in against[:4]] == ["96", "128", "192", "256"]
    for _, mean, low, high, _ in against[:4]:
        said = f"{float(mean):.3f} ({float(low):.3f} to {float(high):.3f})"
        assert said in " ".join(text.split())
    assert "Holm p " + ", ".join(p for *_, p in against[:4]) in " ".join(text.split())
    assert "0.61 %" in out
    assert "used as a constant prediction, has an error of 0.61 %" in " ".join(text.split())


def test_the_study_of_segmentation_says_what_its_rows_say():
    out = printed("segmentation/verdicts.py")
    text = " ".join((RESULTS / "segmentation/README.md").read_text().replace(" points", "").split())
    means = re.findall(r"^  (\w+) +([\d.]+)  ([\d.]+) to ([\d.]+), 3 seeds$", out, re.MULTILINE)
    assert len(means) == 7
    for _, mean, low, high in means:
        assert f"| {mean} ({low} to {high}) |" in text
    apart = re.findall(r"^  \w+ - \w+: ([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+)\)$", out, re.MULTILINE)
    said = [f"{mean} ({low} to {high})" in text for mean, low, high in apart]
    assert sum(said) == 5  # all but those of which the text says less


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_the_study_of_depth_says_what_its_rows_say():
    text = (RESULTS / "depth/README.md").read_text()
    lines = lines_of(printed("depth/verdicts.py"))
    assert len(lines) > 30
    assert not set(lines) - set(lines_of(text))


def test_the_study_of_detection_says_what_its_rows_say():
    text = (RESULTS / "detection/README.md").read_text()
    lines = lines_of(printed("detection/verdicts.py"))
    assert len(lines) > 15
    assert not set(lines) - set(lines_of(text))


def test_the_study_of_galileo_says_what_its_rows_say():
    out, text = printed("slimming_galileo/verdicts.py"), (RESULTS / "slimming_galileo/README.md").read_text()
    assert len(lines_of(out)) == 2 * 8
    assert lines_of(out) == lines_of(text)
    rows = read_rows(RESULTS / "slimming_galileo/rows.jsonl")
    assert all(one.agrees for one in recompute(rows))
    own = [r for r in rows if r.metric == "macro_accuracy" and r.objective != "none"]
    value = {(r.ordering, r.recovery, r.width_ratio, r.probe): r.value for r in own}
    published, whole, floor = (
        100 * value[ordering, "none", width, "knn"]
        for ordering, width in (("first", 0.1), ("first", 1.0), ("patch_moments", 1.0))
    )
    words = " ".join(text.split())
    assert f"{whole - published:.1f} points lost, {floor - published:.1f} points less than moments" in words
    assert f"keeps {100 * published / whole:.0f} % of its raw 5-NN score" in words


@pytest.mark.parametrize(("encoder", "blocks"), [("deep12", 12), ("deep24", 24), ("galileo_nano", 4)])
def test_scores_of_depths_follow_from_one_bit_an_image(encoder, blocks):
    """The table of chosen depths, by numpy alone."""
    file = RESULTS / f"depth/{encoder}.rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    classes = {row["dataset"]: decoded(row["outcomes"]) for row in rows if row["probe"] == "labels"}
    scores = {}
    for row in rows:
        of_curve = row["mode"] == "layers" or row["ordering"] == "depth_0"
        if row["metric"] == "macro_accuracy" and of_curve and row["objective"] != "none":
            right, truth = decoded(row["outcomes"]), classes[row["dataset"]]
            score = np.mean([right[truth == label].mean() for label in np.unique(truth)])
            scores[row["dataset"], row["probe"], round(row["depth_ratio"] * blocks)] = score
    table = [line.strip("| ").split(" | ") for line in lines_of((RESULTS / "depth/README.md").read_text())]
    told = [cells for cells in table if len(cells) == 12 and cells[0] == encoder]
    assert len(told) >= 2
    for _, dataset, probe, keep, _, _, these, _, whole, apart, best, enough in told:
        curve = {n: scores[dataset, probe, n] for n in range(blocks + 1)}
        assert (these, whole) == (f"{100 * curve[int(keep)]:.1f}", f"{100 * curve[blocks]:.1f}")
        assert float(apart.split()[0]) == pytest.approx(100 * (curve[int(keep)] - curve[blocks]), abs=0.051)
        first = max(curve, key=curve.get)
        assert best == f"{first}: {100 * curve[first]:.1f}"
        assert int(enough) == min(n for n in curve if curve[n] >= curve[blocks] - 0.01)


def test_floors_are_said_as_their_rows_have_them():
    text = (RESULTS / "slimming_hurricane/README.md").read_text()
    rows = read_rows(RESULTS / "slimming_hurricane/floors.rows.jsonl")
    assert all(one.agrees for one in recompute(rows))
    names = {"raw_pixels": "raw pixels", "patch_moments": "moments of patches, 12 numbers", "handmade": "together, 216"}
    names |= {"colour_histogram": "colour histogram, 64", "gradient_histogram": "gradient histogram, 128"}
    names |= {"radial_spectrum": "radial spectrum, 12"}
    value = {(r.dataset, r.ordering, r.probe): r.value for r in rows if r.metric == "macro_accuracy"}
    assert len(value) == 3 * 6 * 2
    for name, words in names.items():
        cells = (
            ", ".join(f"{100 * value[dataset, name, probe]:.1f}" for probe in ("knn", "linear"))
            for dataset in ("rssccn7", "matched rssccn7", "matched caltech101")
        )
        assert f"| {words} | {' | '.join(cells)} |" in text
    apart = re.findall(r"(?:knn|linear): \S+ - handmade \S+ = (.*)", printed("slimming_hurricane/verdicts.py"))
    assert f"| {', '.join(apart[:2])} | {', '.join(apart[2:4])} | {', '.join(apart[4:])} |" in text


def test_published_laws_come_out_of_their_own_tables():
    """`laws.md` has the constants that it says, and README has its exponents."""
    text = (RESULTS / "reanalysis/laws.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    fits = [row for row in cells if len(row) == 7 and row[0] != "fit"]
    assert len(fits) >= 15
    for _, name, ours, interval, theirs, difference, source in fits:
        low, high = map(float, interval.split(" to "))
        assert low <= float(ours) <= high, name
        assert abs(float(ours) / float(theirs) - 1 - float(difference.rstrip("%")) / 100) < 1e-4
        if "optimiser stopped" not in source:  # the same objective on the same rows
            assert abs(float(difference.rstrip("%"))) < 0.02, (name, source)
    commands = [line for line in text.splitlines() if line.startswith("python -m scaling.laws ")]
    made_with = re.search(r"^RESAMPLES = (\d+)", (RESULTS / "reanalysis/laws.py").read_text(), re.MULTILINE)[1]
    assert commands
    assert all(f" --resamples={made_with}" in line for line in commands)
    moved = {(row[0], row[1]): row[3] for row in cells if len(row) == 4}
    readme = (RESULTS / "reanalysis/README.md").read_text()
    shown = [moved["Chinchilla, 240 points", exponent] for exponent in ("alpha", "beta")]
    assert f"{shown[0]} and {shown[1]}" in " ".join(readme.split())
