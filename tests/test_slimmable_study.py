"""The tables of `results/slimmable`, recomputed from its rows with numpy alone."""

import itertools
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.rows import decoded

FOLDER = Path(__file__).parents[1] / "results" / "slimmable"
WIDTHS = ("0.001", "0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "1")
NARROW, BOTH = WIDTHS[2:7], {"knn": ("rssccn7", "eurosat"), "linear": ("rssccn7",)}
COLUMNS = tuple(itertools.product(("mae", "moco"), ("knn", "linear")))
PUBLISHED, REPAIRED = ("first", "none"), ("svd", "ridge")
DRAWS = 1000


def drawn_scores(right, truth):
    """Mean over the classes of the share that is right: of these images, and of images drawn from them."""
    drawn = np.random.default_rng(0).integers(len(truth), size=(DRAWS, len(truth)))
    hits, often = (np.zeros((DRAWS + 1, truth.max() + 1, right.shape[0])) for _ in range(2))
    for label in range(truth.max() + 1):
        counts = np.array([np.bincount(d[truth[d] == label], minlength=len(truth)) for d in drawn])
        counts = np.vstack([truth == label, counts]).astype(float)
        hits[:, label], often[:, label] = counts @ right.T, counts.sum(1)[:, None]
    return 100 * (hits / often).mean(1)  # [1 + DRAWS, encoders]


@pytest.fixture(scope="module")
def scores():
    """(model, cut or control, set, probe, width) -> [1 + DRAWS] points, of every seed."""
    rows = [json.loads(text) for text in (FOLDER / "rows.jsonl").read_text().splitlines()]
    truth = {(r["dataset"], r["config_hash"]): decoded(r["outcomes"]) for r in rows if r["probe"] == "labels"}
    found = {}
    for dataset in ("rssccn7", "eurosat"):
        own = [r for r in rows if r["dataset"] == dataset and r["probe"] != "labels"]
        labels = {truth[dataset, r["config_hash"]].tobytes() for r in own}
        assert len(labels) == 1  # the same images in the same order
        values = drawn_scores(np.array([decoded(r["outcomes"]) for r in own]), np.frombuffer(labels.pop(), np.uint8))
        np.testing.assert_allclose(values[0], [100 * r["value"] for r in own])
        for r, value in zip(own, values.T, strict=True):
            model, _, seed = r["model"].partition("_seed")
            how = (
                (r["ordering"],) if r["mode"] == "control" else (r["ordering"], r["recovery"], f"{r['width_ratio']:g}")
            )
            found.setdefault((model, *how, dataset, r["probe"]), {})[int(seed or r["seed"])] = value
    return {key: np.array([x[seed] for seed in sorted(x)]) for key, x in found.items()}


def of(scores, model, cut, probe, widths):
    """[seeds, 1 + DRAWS], the mean over widths and sets."""
    sets = [
        np.mean([scores[model, *(cut if w != "1" else PUBLISHED), w, name, probe] for w in widths], axis=0)
        for name in BOTH[probe]
    ]
    return np.mean(sets, axis=0)


def over(values, seed=0):
    """The mean over seeds, and its hierarchical bootstrap."""
    chosen = np.random.default_rng(seed).integers(len(values), size=(len(values), DRAWS))
    return np.append(values[:, 0].mean(), values[chosen, np.arange(1, DRAWS + 1)].mean(0))


def said(x):
    """Difference and ends of its interval, to the printed digit."""
    return pytest.approx([x[0], *np.quantile(x[1:], [0.025, 0.975])], abs=0.0501)


def read(*cells):
    return [[float(x) for x in re.findall(r"[+-]\d+\.\d", cell)] for cell in cells]


def against(scores, objective, probe, kind, cut, own=PUBLISHED, widths=NARROW):
    mine, other = (of(scores, f"{objective}_{k}", c, probe, widths) for k, c in (("slimmable", own), (kind, cut)))
    return mine - other


def table(title):
    text = (FOLDER / "tables.md").read_text()
    (part,) = re.findall(rf"^## {re.escape(title)}.*?\n\n(.*?)\n(?:\n|$)", text, re.MULTILINE | re.DOTALL)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in part.splitlines()][2:]


def test_the_primary_tests_are_those_of_the_rows(scores):
    rows, p = table("Primary tests"), []
    assert len(rows) == 8
    cuts = [PUBLISHED, REPAIRED]
    for row, (cut, (objective, probe)) in zip(rows, itertools.product(cuts, COLUMNS), strict=True):
        found = against(scores, objective, probe, "longer", cut)
        x = over(found)
        assert row[1] == f"{objective}, {probe}"
        assert read(*row[2:4]) == [said(x), pytest.approx(found[:, 0], abs=0.0501)]
        p.append(2 * stats.norm.sf(abs(x[0]) / x[1:].std()))
    order = np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(np.array(p)[order] * np.arange(8, 0, -1)), 1)
    for place, value in zip(order, adjusted, strict=True):
        assert float(rows[place][4]) == pytest.approx(value, abs=6e-5)
        signs = {v[0] for v in rows[place][3].split(", ")}
        stands = value < 0.05 and len(signs) == 1
        assert rows[place][5] == (
            {"+": "yes", "-": "no, it is worse"}[rows[place][2][0]] if stands else "not significant"
        )


def test_the_secondary_differences_are_those_of_the_rows(scores):
    kinds = [("regular", PUBLISHED, PUBLISHED), ("regular", REPAIRED, PUBLISHED), ("longer", REPAIRED, REPAIRED)]
    for row, (kind, cut, own) in zip(table("Secondary"), kinds, strict=True):
        assert read(*row[1:]) == [said(over(against(scores, o, p, kind, cut, own))) for o, p in COLUMNS]
    whole = {"cut": PUBLISHED, "widths": ("1",)}
    for row, kind in zip(table("Full width"), ("regular", "longer"), strict=True):
        assert read(*row[1:]) == [said(over(against(scores, o, p, kind, **whole))) for o, p in COLUMNS]
    apart = [{"kind": "longer", "cut": PUBLISHED}, {"kind": "longer", "cut": REPAIRED}]
    apart += [{"kind": kind, **whole} for kind in ("regular", "longer")]
    for row, fields in zip(table("MoCo minus MAE"), apart, strict=True):
        pairs = [[against(scores, o, p, **fields) for o in ("moco", "mae")] for p in ("knn", "linear")]
        assert read(*row[1:]) == [said(over(moco) - over(mae, seed=1)) for moco, mae in pairs]


def test_the_gate_is_that_of_the_rows(scores):
    rows = table("Gate")
    assert len(rows) == 2 * 3 * 3
    for model, where, score, depth_0, hand, random in rows:
        name, (dataset, probe) = model.replace(" ", "_"), where.split(", ")
        full = scores[name, *PUBLISHED, "1", dataset, probe]
        without = scores[name, "depth_0", dataset, probe]
        means = [full[:, 0].mean(), without[:, 0].mean()]
        assert [float(score), float(depth_0)] == pytest.approx(means, abs=0.0501)
        (handmade,) = scores["mae_regular", "handmade", dataset, probe]
        assert read(hand) == [said(over(full) - handmade)]
        noise = over(scores["random_weights", *PUBLISHED, "1", dataset, probe], seed=1)
        assert read(random) == [said(over(full) - noise)]


def test_curves_and_signs_are_those_of_the_rows(scores):
    for objective, probe in COLUMNS:
        rows = {row[0]: row[1:] for row in table(f"{objective}, {probe}: score by width")}
        assert len(rows) == 7
        for kind, (name, cut) in itertools.product(
            ("regular", "longer", "slimmable"), {"published": PUBLISHED, "repaired": REPAIRED}.items()
        ):
            found = [of(scores, f"{objective}_{kind}", cut, probe, (w,))[:, 0].mean() for w in WIDTHS]
            assert [float(x) for x in rows[f"{kind}, {name}"]] == pytest.approx(found, abs=0.0501)
        noise = [of(scores, "random_weights", PUBLISHED, probe, (w,))[:, 0].mean() for w in WIDTHS]
        assert [float(x) for x in rows["random weights"]] == pytest.approx(noise, abs=0.0501)
    rows = {row[0]: row[1:] for row in table("Published signs")}
    for objective, dataset in itertools.product(("mae", "moco"), BOTH["knn"]):
        mine, other = ([scores[f"{objective}_{k}", *PUBLISHED, w, dataset, "knn"] for w in WIDTHS]
                       for k in ("slimmable", "regular"))  # fmt: skip
        assert read(*rows[f"{objective}, here, {dataset}"]) == [
            said(over(a - b)) for a, b in zip(mine, other, strict=True)
        ]
    assert rows["mae, published, m-eurosat"] == ["-2.1", "-3.0", "+0.4", "-1.1", "-1.0", "-1.5", "-2.0", "-1.0"]
    assert rows["moco, published, m-eurosat"] == ["+0.5", "+1.5", "+5.3", "+4.0", "+5.2", "+1.1", "+2.1", "+2.4"]


def test_every_difference_and_score_of_the_page_is_one_of_its_tables():
    text = " ".join((FOLDER / "README.md").read_text().split())
    tables = (FOLDER / "tables.md").read_text()
    found = re.findall(r"[+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)", text)
    assert len(found) > 20
    assert not [words for words in found if words not in tables]


def test_a_difference_stands_only_where_all_seeds_have_its_sign():
    arm = runpy.run_path(str(FOLDER / "scores.py"))["Arm"]
    draws = np.random.default_rng(0).normal(0, 0.1, 200)
    for values, alike in ((np.array([2.0, 1.0, 0.5]), True), (np.array([2.0, 1.0, -0.1]), False)):
        found = arm(values, values[:, None] + draws).over()
        assert found.one_sign is alike
        assert (found.value, found.seeds) == (pytest.approx(values.mean()), tuple(values))
        assert found.low < found.value < found.high
