"""The tests that were fixed beforehand, on rows that were made up to have an answer."""

import dataclasses
import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from scaling.core.rows import read_rows
from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from tests.rows import ROW

SETS = ("eurosat", "hurricane", "tinyimagenet")


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(Path(__file__).parents[1] / "results" / "redundancy" / "decide.py"))


def test_sets_are_handed_out_in_every_way_once(study):
    labels = [name for name in SETS for _ in range(3)]
    found = list(study["arrangements"](labels))
    assert len(found) == len(set(found)) == 1680
    assert set(study["arrangements"](list("aab"))) == set(itertools.permutations("aab"))


def test_the_permutation_test_is_exact(study):
    labels = list("aabbcc")
    values = np.array([0.1, 0.12, 0.3, 0.31, 0.7, 0.66])
    everything = list(itertools.permutations(labels))  # with repetitions, each arrangement as often

    def f(order):
        return stats.f_oneway(*(values[[x == name for x in order]] for name in "abc")).statistic

    expected = np.mean(
        [f(order) >= f(labels) - 1e-9 for order in everything]
    )  # F rises with the sum of squares between
    assert study["of_pretraining"](values, labels) == pytest.approx(expected)
    apart = np.repeat([0.1, 0.5, 0.9], 3) + np.arange(9) * 1e-3
    assert study["of_pretraining"](apart, [n for n in SETS for _ in range(3)]) == pytest.approx(6 / 1680)


def test_the_sign_test_leaves_ties_out(study):
    assert study["of_domain"](np.array([0.1] * 9)) == pytest.approx(2 / 2**9)
    assert study["of_domain"](np.array([0.1] * 8 + [0.0])) == pytest.approx(2 / 2**8)
    assert study["of_domain"](np.zeros(9)) == 1


def rows_of(kept_by):
    """Rows of nine encoders; `kept_by(set, dataset)` is the share of the score above depth 0 that the cut retains."""
    count, rows = 1000, []
    truth = np.random.default_rng(0).integers(5, size=count)
    ease = np.random.default_rng(1).permutation(count)
    for dataset, probe in itertools.product(("rssccn7", "caltech101"), ("knn", "linear")):
        for seed, name in itertools.product(range(3), SETS):
            cell = dataclasses.replace(
                ROW,
                model=f"seed{seed}_{name}",
                mode="inner",
                ordering="first",
                recovery="none",
                dataset=dataset,
                probe=probe,
            )
            if probe == "knn":
                rows += labels_row(cell, truth)
            share = {"full": 0.8, "depth_0": 0.5, "cut": 0.5 + 0.3 * (kept_by(name, dataset) + 0.01 * seed)}
            for what, x in share.items():
                right = ease < x * count
                answer = Predictions(np.where(right, truth, (truth + 1) % 5), truth)
                more = {"depth_0": {"mode": "control", "ordering": "depth_0"}, "cut": {"width_ratio": 0.1}}.get(
                    what, {}
                )
                score = answer.scores()["macro_accuracy"]
                rows.append(
                    dataclasses.replace(
                        cell, metric="macro_accuracy", value=score, outcomes=outcomes_of(answer), **more
                    )
                )
    return rows


def found(study, kept_by):
    return {name: (p, adjusted) for name, p, adjusted, _ in study["decide"](rows_of(kept_by))}


def test_what_is_the_pretrainings_is_told_from_what_is_the_probes(study):
    data = found(study, lambda name, dataset: 0.2 + 0.3 * SETS.index(name))
    assert data["knn (a) pretraining"] == pytest.approx((6 / 1680, 4 * 6 / 1680))
    assert data["knn (b) domain"][1] > 0.05
    probe = found(study, lambda name, dataset: 0.8 if dataset == "rssccn7" else 0.4)
    assert probe["linear (b) domain"][0] == pytest.approx(2 / 2**9)
    assert probe["linear (b) domain"][1] < 0.05
    assert probe["knn (a) pretraining"][1] > 0.05


def script(name):
    return runpy.run_path(str(Path(__file__).parents[1] / "results" / "redundancy" / f"{name}.py"))


def answered(share, count=1000):
    """Predictions that are right for so large a share of the images, the easiest first."""
    truth = np.random.default_rng(0).integers(5, size=count)
    right = np.random.default_rng(1).permutation(count) < share * count
    return Predictions(np.where(right, truth, (truth + 1) % 5), truth)


def scored(answer, **fields):
    row = dataclasses.replace(ROW, mode="inner", ordering="first", recovery="none", metric="macro_accuracy", **fields)
    return dataclasses.replace(row, value=answer.scores()["macro_accuracy"], outcomes=outcomes_of(answer))


def rows_of_lengths(kept, longest=0.9):
    """Eight encoders of three lengths; `kept(steps)` is the share that the cut retains above depth 0."""
    where = {"dataset": "rssccn7", "probe": "knn"}
    hand = scored(answered(0.7), **where, model="none", objective="none")
    rows = [dataclasses.replace(hand, mode="control", ordering="handmade")]
    rows += labels_row(rows[0], answered(0.5).truth)
    for steps, seed in [(s, seed) for s in (150, 600) for seed in range(3)] + [(2400, 0), (2400, 1)]:
        full, own = longest if steps == 2400 else 0.8, {**where, "model": f"steps{steps}_seed{seed}", "step": steps}
        rows.append(scored(answered(full), **own))
        rows.append(scored(answered(0.5 + (full - 0.5) * kept(steps, seed)), **own, width_ratio=0.1))
        depth_0 = scored(answered(0.5), **own)
        rows.append(dataclasses.replace(depth_0, mode="control", ordering="depth_0"))
    return rows


def test_a_loss_that_grows_with_training_is_seen_and_the_gate_is_that_of_the_longest():
    length = script("length")
    rows = rows_of_lengths(lambda steps, seed: 0.9 - 0.05 * np.log2(steps / 150) + 0.01 * seed)
    found, undefined = length["retained"](rows)
    assert (len(found), undefined) == (8, [])
    x, y = (np.array(v, float) for v in zip(*found.values(), strict=True))
    x = np.log2(x) - np.log2(x).mean()
    slope = x @ y / (x @ x)
    error = np.sqrt(((y - y.mean() - slope * x) ** 2).sum() / 6 / (x @ x))
    assert length["slope"](found) == pytest.approx((slope, error, stats.t.cdf(slope / error, 6)))
    assert slope == pytest.approx(-0.05, abs=0.01)
    steps, above, (low, high), encoders = length["gate"](rows)
    assert (steps, encoders) == (2400, 2)
    assert above == pytest.approx(0.2, abs=0.01)
    assert 0 < low < above < high
    _, _, (low, _), _ = length["gate"](rows_of_lengths(lambda steps, seed: 0.5, longest=0.69))
    assert low < 0
    rising = length["retained"](rows_of_lengths(lambda steps, seed: 0.5 + 0.05 * np.log2(steps / 150) + 0.01 * seed))
    assert length["slope"](rising[0])[2] > 0.9


def rows_of_rates(best):
    """Losses that are parabolas in the log of the rate, with its best rate for every width and seed."""
    row = dataclasses.replace(ROW, metric="eval_loss", parametrization="mup")
    cases = itertools.product((32, 256), (0, 1, 2), (4e-3, 8e-3, 1.6e-2, 2.4e-2))
    return [
        dataclasses.replace(row, embed=w, seed=s, base_lr=lr, value=0.8 + np.log(lr / best(w, s)) ** 2)
        for w, s, lr in cases
    ]


def test_the_best_rate_is_the_vertex_and_one_beyond_the_rates_is_not_bracketed():
    rates = script("rates")
    found = rates["vertices"](rows_of_rates(lambda w, s: (0.008 if w == 32 else 0.012) * 1.05**s))
    assert np.exp(found[32, 1]) == pytest.approx(0.0084)
    assert rates["shifts"](found) == pytest.approx([np.log(1.5)] * 3)
    beyond = rates["vertices"](rows_of_rates(lambda w, s: 0.03 if (w, s) == (256, 2) else 0.01))
    assert beyond[256, 2] is None
    lost = rows_of_rates(lambda w, s: 0.01)
    lost[3] = dataclasses.replace(lost[3], value=None)
    assert rates["vertices"](lost)[32, 0] is None
    assert len(rates["shifts"](beyond)) == 2


@pytest.fixture(scope="module")
def classes():
    return script("classes")


def test_the_mixed_model_is_at_the_largest_likelihood(classes):
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=60), rng.integers(12, size=60)
    x = np.column_stack([np.ones(60), rng.normal(size=60)])
    y = x @ [0.5, -0.1] + 0.2 * rng.normal(size=5)[a] + 0.1 * rng.normal(size=12)[b] + 0.1 * rng.normal(size=60)
    fit = classes["fitted"](y, x, [a, b])

    def density(ratios, coefficients, noise):
        same = sum(r * (g[:, None] == g) for r, g in zip(ratios, (a, b), strict=True))
        return stats.multivariate_normal.logpdf(y, x @ coefficients, noise * (np.eye(60) + same))

    v = np.eye(60) + sum(r * (g[:, None] == g) for r, g in zip(fit.ratios, (a, b), strict=True))
    inverse = np.linalg.inv(v)
    left = y - x @ fit.coefficients
    noise = left @ inverse @ left / 60
    np.testing.assert_allclose(fit.coefficients, np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y))
    np.testing.assert_allclose(fit.covariance, noise * np.linalg.inv(x.T @ inverse @ x))
    best = density(fit.ratios, fit.coefficients, noise)
    assert fit.likelihood == pytest.approx(best)
    for other in ([1.1, 1], [0.9, 1], [1, 1.1], [1, 0.9]):
        assert density(fit.ratios * other, fit.coefficients, noise) < best
    assert density(fit.ratios, fit.coefficients, 1.1 * noise) < best


def test_class_count_and_domain_are_told_apart(classes):
    rng = np.random.default_rng(0)
    rows = []
    for encoder, (dataset, counts) in itertools.product(range(4), classes["COUNTS"].items()):
        for count, draw in itertools.product(counts, range(2)):
            kept = 0.7 + 0.2 * (dataset in classes["OVERHEAD"]) + 0.02 * rng.normal()
            row = {"encoder": f"e{encoder}", "dataset": dataset, "classes": count, "draw": draw}
            rows.append({**row, "full": 0.9, "depth_0": 0.5, "cut": 0.5 + 0.4 * kept})
    rows[0]["full"] = 0.51
    said = classes["decide"](rows)
    assert "1 of 8 draws have no R" in said[0]
    assert "objects minus overhead, at the mean number of classes: -0.19" in said[-2]
    assert "class count is without effect within 0.02" in said[-1]
    assert "p 0.0000" in next(line for line in said if line.startswith("without the domain"))


def test_an_encoder_is_not_tested_on_the_set_that_it_was_pretrained_on(classes):
    row = {"dataset": "eurosat", "classes": 2, "draw": 0, "full": 0.9, "depth_0": 0.5, "cut": 0.7}
    others = [{**row, "encoder": f"seed{s}_hurricane", "dataset": d, "classes": k, "draw": i, "cut": 0.7 + 0.01 * i}
              for s in range(2) for d in ("eurosat", "caltech101") for k in (2, 5) for i in range(3)]  # fmt: skip
    own = [{**row, "encoder": "seed0_eurosat", "cut": 0.89, "draw": i} for i in range(3)]
    said = classes["decide"](others + own)
    assert said[0].startswith("left out of all tests: 3 draws")
    assert said[1:] == classes["decide"](others)


def test_draws_of_classes_take_all_test_images_and_so_many_of_training(classes):
    labels = SimpleNamespace(labels=np.repeat([3, 5, 9], [50, 20, 40]))
    rest = SimpleNamespace(labels=np.array([3, 5, 9, 9]))
    train, test = classes["drawn"](labels, rest, 2, 0)
    chosen = np.unique(labels.labels[train])
    assert len(chosen) == 2
    assert [(labels.labels[train] == name).sum() for name in chosen] == [
        min(30, (labels.labels == n).sum()) for n in chosen
    ]
    np.testing.assert_array_equal(rest.labels[test], rest.labels[np.isin(rest.labels, chosen)])
    assert len({tuple(np.unique(labels.labels[classes["drawn"](labels, rest, 2, d)[0]])) for d in range(20)}) == 3


def rows_of_arms(loss):
    """Two sets, five seeds, one width; `tiles` are so much below `target`."""
    rows = []
    for dataset, probe, seed in itertools.product(("rssccn7", "eurosat"), ("knn", "linear"), range(5)):
        where = {"dataset": dataset, "probe": probe, "seed": seed, "study": "calibration", "width_ratio": 0.1}
        for arm, share in {"target": 0.8, "tiles": 0.8 - loss, "outside": 0.79, "other": 0.7}.items():
            row = scored(answered(share + 0.002 * seed), **where)
            rows.append(dataclasses.replace(row, ordering="svd", recovery=f"ridge {arm}"))
        rows += labels_row(rows[-1], answered(0.5).truth) if probe == "knn" and seed == 0 else []
    return rows


def test_tiles_are_compared_with_the_target_over_seeds_and_images():
    calibration = script("calibration")
    close = calibration["decide"](rows_of_arms(0.002), draws=200)
    assert sum("tiles are not inferior" in line for line in close) == 2
    far = calibration["decide"](rows_of_arms(0.03), draws=200)
    assert sum("tiles are not shown to be not inferior" in line for line in far) == 2
    rows = rows_of_arms(0.03)
    value, draws = calibration["differences"](rows, "knn", "tiles", draws=200)
    truth, per_set = answered(0.5).truth, []
    for number in (1, 0):  # eurosat, rssccn7: as in the order of their names
        chosen = np.random.default_rng(number).integers(5, size=(5, 200))
        images = np.random.default_rng(0).integers(1000, size=(200, 1000))
        accuracy = np.zeros((2, 5, 200))
        for (i, share), seed in itertools.product(enumerate((0.77, 0.8)), range(5)):
            right = answered(share + 0.002 * seed)
            hit = right.predicted == truth
            for draw, rows_drawn in enumerate(images[:50]):
                by_class = [hit[rows_drawn][truth[rows_drawn] == name].mean() for name in range(5)]
                accuracy[i, seed, draw] = np.mean(by_class)
        each = accuracy[0] - accuracy[1]
        per_set.append(np.take_along_axis(each, chosen, axis=0).mean(0))
    np.testing.assert_allclose(draws[:50], np.mean(per_set, axis=0)[:50], atol=1e-6)
    assert value == pytest.approx(-0.03, abs=0.004)


def test_the_page_has_the_scores_and_the_tests_of_the_rows_beside_it(study):
    folder = Path(__file__).parents[1] / "results" / "redundancy"
    page, files = (folder / "README.md").read_text(), sorted(folder.glob("seed*.rows.jsonl"))
    assert files
    for line in runpy.run_path(str(folder / "summary.py"))["lines"](files):
        assert line in page
    found = study["all_measured"]([row for file in files for row in read_rows(str(file))])
    for line in runpy.run_path(str(folder / "kept.py"))["lines"](found):
        assert line in page
    for name, p, adjusted, words in study["decided"](found):
        assert f"{name:<24} p {p:.4f}, Holm {adjusted:.4f}" in page
        assert words in page
