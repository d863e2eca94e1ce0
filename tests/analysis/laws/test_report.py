"""Intervals hold the truth as often as they say, and what the rows do not support is said."""

import numpy as np
import pytest

from scaling.analysis.laws.allocation import allocate
from scaling.analysis.laws.fitting import fit
from scaling.analysis.laws.isoflop import isoflop
from scaling.analysis.laws.report import aicc, held_out, law
from scaling.errors import UserError
from tests.analysis.laws.examples import TRUTH, chinchilla, losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_summary_has_the_names_of_the_formula_and_ordered_intervals():
    found = law("power", *losses("power", noise=0.01), count=200).summary()
    assert set(found["parameters"]) == {"a", "b", "c"}
    assert found["formula"] == "a x^-b + c"
    for p in found["parameters"].values():
        assert p["low"] <= p["value"] <= p["high"]
    assert found["agreeing_starts"] > 0.5
    assert found["held_out"]["rms_log_error"] < 0.1


@pytest.mark.long
@pytest.mark.parametrize("form", TRUTH)
def test_ninety_five_percent_intervals_hold_the_truth(form):
    truth, draws = TRUTH[form][2], 200
    held = dict.fromkeys(truth, 0)
    for seed in range(draws):
        x, y = losses(form, noise=0.005, seed=seed)
        p = law(form, x, y, count=200, seed=seed).summary()["parameters"]
        for name, value in truth.items():
            held[name] += p[name]["low"] <= value <= p[name]["high"]
    print(form, {name: count / draws for name, count in held.items()})
    assert all(0.90 <= count / draws <= 0.98 for count in held.values())


def test_a_law_with_an_offset_beats_the_one_without_only_where_there_is_one():
    x, y = losses("power", noise=0.001)
    assert aicc(fit("line", x, y), x, y) > aicc(fit("power", x, y), x, y) + 10
    x, y = losses("line", noise=0.001)
    assert aicc(fit("line", x, y), x, y) < aicc(fit("power", x, y), x, y) + 1


def test_few_points_a_short_span_and_an_open_direction_are_said():
    x = np.linspace(1.0, 2.0, 6)
    warnings = " ".join(law("power", x, 2 * x**-0.3 + 1, count=20).warnings)
    assert "6 points for 3 constants" in warnings
    assert "x spans a factor of 2.0, less than a decade: do not extrapolate" in warnings
    assert "leave a direction open" in warnings
    assert law("power", *losses("power"), count=20).warnings == ()


@pytest.mark.long
def test_a_form_that_bends_otherwise_leaves_neighbours_on_one_side():
    x, y = losses("power", noise=0.001)
    straight, bent = law("line", x, y, count=20), law("power", x, y, count=20)
    assert straight.residuals["shared"] > 0.5 > bent.residuals["shared"]
    assert "neighbouring points lie on the same side of the curve: it is not of this form" in straight.warnings
    assert bent.residuals["rms"] < 0.002 < straight.residuals["rms"]


def test_the_largest_are_predicted_from_the_others():
    found = held_out("power", *losses("power"))
    assert found["rows"] == 4
    assert found["rms_log_error"] < 1e-6
    x, y = losses("power")
    y = np.where(x > 3e8, 1.1 * y, y)  # what is large does not follow the law
    assert held_out("power", x, y)["mean_log_error"] == pytest.approx(-np.log(1.1), abs=0.03)


def profile(budget, centre, width, models=9):
    n = np.geomspace(centre / width, centre * width, models)
    return np.stack([n, budget / 6 / n], axis=1)


def test_the_parabola_is_biased_where_its_range_is_off_centre_and_the_law_is_not():
    truth = TRUTH["chinchilla"][2]
    exact = truth["beta"] / (truth["alpha"] + truth["beta"])
    budgets = np.geomspace(1e18, 1e22, 5)
    scale = truth["alpha"] * truth["A"] / (truth["beta"] * truth["B"])
    best = scale ** (1 / (truth["alpha"] + truth["beta"])) * (budgets / 6) ** exact
    points = np.concatenate(
        [profile(b, n * 3 ** (i - 2), 30) for i, (b, n) in enumerate(zip(budgets, best, strict=True))]
    )
    found = isoflop(*points.T, chinchilla(points, **truth))
    assert found.law == pytest.approx(exact, abs=1e-6)
    assert abs(found.gap) > 0.005
    narrow = np.concatenate([profile(b, n, 1.5) for b, n in zip(budgets, best, strict=True)])
    assert isoflop(*narrow.T, chinchilla(narrow, **truth)).parabola == pytest.approx(exact, abs=1e-3)


def test_profiles_without_a_lowest_point_are_refused():
    n = np.array([1e7, 2e7, 4e7, 1e8, 2e8, 4e8])
    d = np.repeat([1e18, 1e20], 3) / 6 / n
    with pytest.raises(UserError, match="have no lowest point between the models"):
        isoflop(n, d, np.array([1.0, 2.0, 1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(UserError, match="has 2 models, a parabola needs three"):
        isoflop(n[[0, 1, 3, 4]], d[[0, 1, 3, 4]], np.ones(4))
    with pytest.raises(UserError, match="one compute budget"):
        isoflop(n[:3], d[:3], np.ones(3))


@pytest.mark.long
def test_resampled_profiles_hold_the_truth_and_a_third_column_says_what_a_budget_is():
    truth = TRUTH["chinchilla"][2]
    exact = truth["beta"] / (truth["alpha"] + truth["beta"])
    points = np.concatenate([profile(b, 1e8 * (b / 1e19) ** exact, 6, models=12) for b in np.geomspace(1e18, 1e21, 4)])
    losses = chinchilla(points, **truth) * np.exp(0.002 * np.random.default_rng(0).normal(size=len(points)))
    counted = 6 * points.prod(1) * np.random.default_rng(1).uniform(0.99, 1.01, len(points))
    found = isoflop(*points.T, losses, counted, count=100).summary()
    assert len(found["vertices"]) == 4
    for name in ("parabola", "law"):
        p = found["parameters"][name]
        assert p["low"] < p["value"] < p["high"]
    law_exponent = found["parameters"]["law"]
    assert law_exponent["low"] < exact < law_exponent["high"]


def test_predictions_say_how_far_they_are_from_what_was_measured():
    found = law("power", *losses("power", noise=0.01), count=50)
    inside, beyond, below = found.at([1e8, 5e9, 1e5])
    truth = TRUTH["power"][0](1e8, **TRUTH["power"][2])
    assert inside.low < truth < inside.high
    assert (inside.beyond, beyond.beyond, below.beyond) == pytest.approx((1.0, 5.0, 10.0))
    assert beyond.high - beyond.low > inside.high - inside.low


def test_a_budget_is_divided_where_neither_more_parameters_nor_more_samples_would_be_better():
    inputs, values = losses("chinchilla")
    found = allocate(law("chinchilla", inputs, values, count=20), 1e21)
    truth = TRUTH["chinchilla"][2]
    n = np.geomspace(1e7, 1e12, 200_001)
    curve = chinchilla(np.stack([n, 1e21 / 6 / n], axis=1), **truth)
    assert found.parameters[0] == pytest.approx(n[curve.argmin()], rel=1e-3)
    assert found.parameters[0] * found.samples[0] * 6 == pytest.approx(1e21)
    assert found.loss[0] == pytest.approx(curve.min(), rel=1e-6)
    with pytest.raises(UserError, match="by a law of the form chinchilla, not power"):
        allocate(law("power", *losses("power"), count=20), 1e21)


def test_what_is_left_of_a_score_is_no_power_law():
    found = law("retention", *losses("retention", noise=0.005), count=100).summary()["parameters"]
    x = np.linspace(0.01, 1, 100_000)
    exact = x[np.searchsorted(TRUTH["retention"][0](x, **TRUTH["retention"][2]), 0.9)]
    assert found["x_90"]["low"] < exact < found["x_90"]["high"]
    assert found["x_90"]["value"] == pytest.approx(exact, rel=0.05)
