"""Intervals of rows computed again from their outcomes, beside a bootstrap written a second time."""

import base64
import dataclasses

import numpy as np
import pytest

from scaling.core.rows import read_rows, write_rows
from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from scaling.studies.checking import gains, recompute
from tests.commands import call, command, error_of
from tests.rows import ROW

COUNT, CLASSES, DRAWS = 300, 4, 200
TEMPLATE = dataclasses.replace(
    ROW, study="slim", model="tiny", mode="inner", ordering="first", recovery="none", probe="knn", params=1, flops=1
)


def answers(share, seed):
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(CLASSES, size=COUNT)
    return Predictions(np.where(rng.random(COUNT) < share, truth, (truth + 1) % CLASSES), truth)


SUBJECTS = {
    (1.0, "first", "none"): answers(0.8, 0),
    (0.1, "first", "none"): answers(0.5, 1),
    (0.1, "svd", "ridge"): answers(0.7, 2),
    (0.1, "random", "none"): answers(0.52, 3),
}


def scored(predictions):
    """Macro accuracy and its replicates, in plain numpy, of the draws that the project documents: indices by seed 0."""
    right, truth = predictions.predicted == predictions.truth, predictions.truth
    drawn = np.random.default_rng(0).integers(COUNT, size=(DRAWS, COUNT))

    def macro(index):
        return np.mean([right[index][truth[index] == c].mean() for c in range(CLASSES)])

    return macro(np.arange(COUNT)), np.array([macro(index) for index in drawn])


@pytest.fixture(scope="module")
def rows():
    """Rows as a study writes them, with numbers from the implementation above."""
    found = labels_row(TEMPLATE, answers(1, 0).truth)
    full, full_draws = scored(SUBJECTS[1.0, "first", "none"])
    first, first_draws = scored(SUBJECTS[0.1, "first", "none"])
    for (width, ordering, recovery), predictions in SUBJECTS.items():
        value, draws = scored(predictions)
        cell = dataclasses.replace(TEMPLATE, width_ratio=width, ordering=ordering, recovery=recovery)

        def row(metric, value, draws, cell=cell, **more):
            low, high = np.quantile(draws, [0.025, 0.975])
            return dataclasses.replace(
                cell, metric=metric, value=float(value), low=float(low), high=float(high), **more
            )

        found.append(row("macro_accuracy", value, draws, outcomes=outcomes_of(predictions)))
        found.append(row("macro_accuracy_retention", value / full, draws / full_draws))
        c = 1 / CLASSES
        found.append(
            row("macro_accuracy_retention_above_chance", (value - c) / (full - c), (draws - c) / (full_draws - c))
        )
        if ordering != "first":
            found.append(row("macro_accuracy_gain", value - first, draws - first_draws))
    return found


def test_every_score_share_and_gain_is_what_the_second_implementation_says(rows):
    found = list(recompute(rows, DRAWS))
    assert len(found) == len(rows) - 1 == 4 * 3 + 2
    for one in found:
        assert one.value == pytest.approx(one.row.value, abs=1e-6)
        assert (one.low, one.high) == pytest.approx((one.row.low, one.row.high), abs=1e-5), one.row.metric


def test_a_number_that_its_outcomes_do_not_give_is_found(rows):
    honest = list(recompute(rows, DRAWS))
    exact = [dataclasses.replace(one.row, value=one.value, low=one.low, high=one.high) for one in honest]
    exact.append(rows[0])
    assert all(one.agrees for one in recompute(exact, DRAWS))
    at = next(i for i, row in enumerate(exact) if row.metric == "macro_accuracy_gain")
    for field in ("value", "low", "high"):
        bent = list(exact)
        bent[at] = dataclasses.replace(exact[at], **{field: getattr(exact[at], field) + 1e-4})
        assert [one.row.identity for one in recompute(bent, DRAWS) if not one.agrees] == [exact[at].identity]


def test_what_cannot_be_computed_again_is_left_out_and_never_guessed(rows):
    without_full = [row for row in rows if row.width_ratio < 1 or row.probe == "labels"]
    assert {one.row.metric for one in recompute(without_full, DRAWS)} == {"macro_accuracy", "macro_accuracy_gain"}
    assert not list(recompute(rows[1:], DRAWS))  # no labels
    old = [dataclasses.replace(row, outcomes="") for row in rows]
    assert not list(recompute(old, DRAWS))
    two = [*rows, *(dataclasses.replace(row, model="another") for row in rows if row.width_ratio == 1)]
    random = dataclasses.replace(rows[1], model="random_weights", objective="none", metric="macro_accuracy_retention")
    own = dataclasses.replace(random, metric="macro_accuracy")
    assert not [one for one in recompute([*two, own, random], DRAWS) if one.row == random]  # of which of the two?


def test_holm_is_over_all_gains(rows):
    found = [one for one in recompute(rows, DRAWS) if one.row.metric.endswith("_gain")]
    p = {gain.rows[0].ordering: gain.p for gain in gains(found)["macro_accuracy_gain"]}
    assert p["svd"] < 1e-4
    assert p["random"] > 0.05
    (alone,) = gains([one for one in found if one.row.ordering == "svd"])["macro_accuracy_gain"]
    assert p["svd"] == pytest.approx(2 * alone.p)
    same = dataclasses.replace(found[0], value=0.0, replicates=np.zeros(DRAWS))
    assert gains([same])["macro_accuracy_gain"][0].p == 1


def test_seeds_are_drawn_with_the_images(rows):
    (one,) = [one for one in recompute(rows, DRAWS) if one.row.metric.endswith("_gain") and one.row.ordering == "svd"]
    rng = np.random.default_rng(0)
    of_images, of_seeds, count = 0.02, 0.05, 40
    shared = rng.normal(0, of_images, 20_000)  # the same drawn images for all seeds
    seeds = [
        dataclasses.replace(one, row=dataclasses.replace(one.row, seed=s), value=value, replicates=value + shared)
        for s, value in enumerate(rng.normal(0.1, of_seeds, count))
    ]
    (gain,) = gains(seeds)["macro_accuracy_gain"]
    spread = np.std([s.value for s in seeds])
    half = 1.96 * np.sqrt(of_images**2 + spread**2 / count)
    assert gain.value == pytest.approx(np.mean([s.value for s in seeds]))
    assert (gain.low, gain.high) == pytest.approx((gain.value - half, gain.value + half), abs=0.002)
    alone = gains(seeds[:1])["macro_accuracy_gain"][0]
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * of_images, rel=0.03)


def test_the_report_says_which_rows_are_not_what_their_outcomes_say(rows, tmp_path):
    exact = [
        dataclasses.replace(one.row, value=one.value, low=one.low, high=one.high) for one in recompute(rows, DRAWS)
    ]
    write_rows(tmp_path / "rows.jsonl", [rows[0], *exact])
    line = [*command("report", "--recompute", output=tmp_path / "page.html", draws=DRAWS), str(tmp_path)]
    done = call(line)
    assert done.returncode == 0, done.stderr
    assert "14 numbers recomputed, 0 differ; 0 cannot be recomputed (no outcomes)" in done.stdout
    starred = [text for text in done.stdout.splitlines() if text.endswith(" *")]
    assert len(starred) == 1
    assert "svd ridge s=0.1" in starred[0]
    page = (tmp_path / "page.html").read_text()
    assert base64.b64encode(np.packbits(SUBJECTS[1.0, "first", "none"].predicted == 0).tobytes()).decode() not in page
    assert "outcomes" not in page
    bent = dataclasses.replace(exact[0], value=exact[0].value + 0.01)
    write_rows(tmp_path / "rows.jsonl", [rows[0], bent, *exact[1:]])
    assert "1 numbers disagree with their outcomes" in error_of(call(line), 2)
    assert len(read_rows(tmp_path / "rows.jsonl")) == 15
